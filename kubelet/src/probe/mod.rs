//! Probes: liveness, readiness and startup, by exec, HTTP, TCP or gRPC.

pub mod check;
mod grpc;
pub mod http;
pub mod results;
mod unverified;
pub mod worker;

pub use results::{Kind, Results, Snapshot};
pub use worker::{ProbeResult, Probes};
