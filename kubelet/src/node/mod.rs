//! This machine as a Node object: its capacity, registration, status and lease.

pub mod capacity;
mod lease;
mod machine;
mod register;
pub mod status;

pub use register::run;
pub use status::{NodeContext, Pressure};
