//! The kubelet: desired pods to running pods, over CRI and the Kubernetes API.
//!
//! Sources of pods (`source`) feed one loop (`sync_loop`), which routes to one worker a
//! pod (`pod::worker`); the worker decides purely (`pod::actions`) and acts through CRI
//! (`pod::execute`); `status_sync` alone writes pod status.

pub mod chain;
pub mod clock;
pub mod config;
pub mod cri;
pub mod event;
pub mod eviction;
pub mod image;
pub mod log;
pub mod mirror;
pub mod node;
pub mod objects;
pub mod orphan;
pub mod pleg;
pub mod pod;
pub mod probe;
pub mod resources;
mod run;
pub mod server;
pub mod source;
pub mod status_sync;
pub mod sync_loop;
#[cfg(test)]
mod testing;
pub mod volume;

pub use config::{Config, ConfigError, RawConfig};
pub use run::{CleanUpError, RunError, clean_up, run};
