//! CHECK: bridge, link, addresses are as ADD left them.

use berth_cni::{Call, CniError, Code};
use berth_netlink::{Socket, netns};

use crate::add::kernel;
use crate::config::Config;
use crate::remove::host_link_name;

pub(crate) fn check(call: &Call<'_>) -> Result<(), CniError> {
    let config = Config::from_conf(&call.config)?;
    let failed = |what: String| CniError::new(Code::CheckFailed, format!("bridge: {what}"));
    let previous = call
        .config
        .prev_result()?
        .ok_or_else(|| CniError::new(Code::InvalidConfig, "bridge: CHECK needs prevResult"))?;
    let mut host = Socket::open().map_err(kernel)?;
    let bridge = host
        .link(&config.bridge)
        .map_err(kernel)?
        .ok_or_else(|| failed(format!("bridge {} is gone", config.bridge)))?;
    let near = host
        .link(&host_link_name(call))
        .map_err(kernel)?
        .ok_or_else(|| failed("the host's end of the veth pair is gone".into()))?;
    if near.master != Some(bridge.index) {
        return Err(failed(format!(
            "{} is not a port of {}",
            near.name, bridge.name
        )));
    }
    if let Some(kind) = &config.ipam {
        call.delegates.check(kind, call)?;
    }
    let path = call.netns.as_deref().ok_or_else(|| {
        CniError::new(
            Code::InvalidEnvironment,
            "bridge: a network namespace is required",
        )
    })?;
    let enter =
        |e| CniError::from_source(Code::UnknownContainer, "bridge: no network namespace", &e);
    let netns = netns::open(path).map_err(enter)?;
    let held = netns::run_in(&netns, || {
        let mut socket = Socket::open()?;
        match socket.link(&call.ifname)? {
            Some(link) => socket.addresses(link.index),
            None => Ok(Vec::new()),
        }
    })
    .map_err(enter)?
    .map_err(kernel)?;
    match previous
        .ips
        .iter()
        .find(|ip| !ip.parse().is_some_and(|pair| held.contains(&pair)))
    {
        Some(missing) => Err(failed(format!(
            "{} lacks address {}",
            call.ifname, missing.address
        ))),
        None => Ok(()),
    }
}
