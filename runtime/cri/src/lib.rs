//! The CRI v1 server: pods and containers for a kubelet, over gRPC on a unix socket.
//!
//! ```text
//! rpc/<verb>  one RPC each ──▶ sandbox/, container/, image  ──▶ monitor (one per pod)
//!                                        │                  ──▶ CNI plugins, image store
//!                                        └─ records: live in the state directory, durable by the journal
//! streaming/  exec, attach, port-forward over SPDY/3.1
//! ```
//!
//! Invariant: an intention is in a record before its effect is in the kernel, so that
//! [`serve`] after a crash at any instruction finds out what exists.

mod audit;
pub mod config;
mod container;
mod events;
pub mod id;
mod image;
mod inflight;
mod journal;
mod monitor;
mod record;
mod rpc;
mod sandbox;
mod serve;
mod server;
mod stats;
mod status;
mod store;
mod streaming;
mod time;
mod undo;

pub use config::{Config, ConfigError, RawConfig};
pub use events::RESUME_HEADER;
pub use serve::{serve, stop_all};
pub use server::ServeError;
