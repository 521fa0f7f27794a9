//! The monitor as the daemon uses it: real processes, namespaces, cgroups.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where it is surprised, its fixtures included"
)]

mod containers;
mod foreign;
mod pod;
mod protocol;
mod records;
mod sessions;
mod stall;
mod wire;
