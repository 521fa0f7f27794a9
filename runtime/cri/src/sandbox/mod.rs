//! Pod sandboxes: what is known of them, how they come and go.

pub mod create;
pub mod model;
pub mod network;
pub mod recover;
pub mod remove;
pub mod shm;
pub mod stop;
mod sysctl;
pub mod watch;
