//! The kubelet's configuration: what was typed (`RawConfig`) and what is true (`Config`).

mod raw;
mod resolved;

pub use raw::RawConfig;
pub use resolved::{CgroupConfig, Config, ConfigError, ServingCertificate};
