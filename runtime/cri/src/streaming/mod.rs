//! Exec, attach and port-forward as byte streams: an HTTP/1.1 server of their own on a
//! loopback address, whose paths are tokens that serve once.
//!
//! ```text
//! kubelet ──gRPC Exec──▶ url with token ──POST, Upgrade: SPDY/3.1──▶ 101 ──▶ streams
//! ```

mod attach;
mod copy;
mod exec;
mod port_forward;
mod remote_command;
mod server;
mod sessions;
mod spdy;

pub use server::serve;
pub use sessions::{Session, Sessions, Streams, TooManySessions};
