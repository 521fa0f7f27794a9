//! The kubelet's own endpoints: plain health on loopback, everything else over HTTPS.
//!
//! Who may come in is decided once a request (`auth`), before its path is looked at by
//! anything but `route`. Streams into containers (`exec`) are never interpreted here: the
//! CRI server's one-time URL is dialled and the upgraded bytes are copied.

mod auth;
mod exec;
pub mod health;
mod log_reader;
mod logs;
mod metrics;
mod pods;
mod reply;
mod route;
mod serve;
mod stats;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;
pub mod view;

pub use serve::{ServeError, serve};
pub use view::PodView;
