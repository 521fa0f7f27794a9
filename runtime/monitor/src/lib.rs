//! One per pod: parent of every process of the pod, outlives the daemon.
//!
//! The daemon uses [`client`] and [`protocol`]; the rest is what the program `berth-monitor` is made of.

pub mod client;
pub mod events;
pub mod exit_record;
pub mod failure;
pub mod launcher;
pub mod log;
pub mod oom;
pub mod pod;
pub mod protocol;
pub mod reactor;
pub mod server;
pub mod start;
pub mod stdio;
pub mod streams;
mod time;
