//! Containers: what is known of them, how they come, run and go.

pub mod create;
pub mod end;
pub mod exec;
pub mod log;
pub mod model;
pub mod oci_spec;
pub mod remove;
pub mod signal;
pub mod start;
pub mod store;
pub mod update;
