//! The CNI plugin `bridge`: a veth pair between the container and a Linux bridge.
//!
//! One request makes the pair with the far end already inside the container's
//! namespace and the near end on the bridge, so an ADD is six netlink requests
//! and one thread.

mod add;
mod check;
mod config;
mod masquerade;
mod remove;
mod sysctl;

use berth_cni::{Call, CniError, CniResult, Plugin, PluginConf};

pub use masquerade::remove as remove_masquerade;

/// The plugin; its type is `bridge`.
pub struct Bridge;

impl Plugin for Bridge {
    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn add(&self, call: &Call<'_>) -> Result<CniResult, CniError> {
        add::add(call)
    }

    fn del(&self, call: &Call<'_>) -> Result<(), CniError> {
        remove::del(call)
    }

    fn check(&self, call: &Call<'_>) -> Result<(), CniError> {
        check::check(call)
    }

    fn status(&self, config: &PluginConf) -> Result<(), CniError> {
        config::Config::from_conf(config).map(drop)
    }
}
