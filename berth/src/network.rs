//! What the node agent itself changes on the host's network, recorded before it is
//! changed, so that the end, or the next start after a crash, puts it back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use berth_netlink::Socket;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Switches that a bridge network turns on.
const SYSCTLS: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];
/// The bridge and network of berth's own default configuration.
const BRIDGE: &str = "berth0";
const NETWORK: &str = "berth";

/// The host as it was.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    /// Path and value of each of [`SYSCTLS`] that the kernel has.
    sysctls: BTreeMap<String, String>,
    dns: IpAddr,
    bridge_was_there: bool,
}

/// The node's own addresses and switches.
pub struct HostNetwork {
    record: PathBuf,
    before: Before,
}

impl HostNetwork {
    /// Records the host as it is (the first time since it was last put back), then gives
    /// `lo` the cluster DNS address.
    pub fn prepare(state_dir: &Path, dns: IpAddr) -> anyhow::Result<HostNetwork> {
        let record = state_dir.join("host-network.json");
        let before = match std::fs::read(&record) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("`{}` is not a record of the host", record.display()))?,
            Err(_) => Self::observe(&record, dns)?,
        };
        let mut socket = Socket::open()?;
        let lo = socket
            .link("lo")?
            .context("this network namespace has no lo")?;
        match socket.add_address(lo.index, dns, host_prefix(dns)) {
            Err(error) if !error.already_exists() => {
                Err(error).context("cannot put the cluster DNS address on lo")?;
            }
            _ => {}
        }
        Ok(HostNetwork { record, before })
    }

    fn observe(record: &Path, dns: IpAddr) -> anyhow::Result<Before> {
        let before = Before {
            sysctls: SYSCTLS
                .iter()
                .filter_map(|path| Some(((*path).to_owned(), value(path)?)))
                .collect(),
            dns,
            bridge_was_there: Socket::open()?.link(BRIDGE)?.is_some(),
        };
        let text = serde_json::to_vec(&before)?;
        std::fs::create_dir_all(record.parent().unwrap_or(Path::new("/")))?;
        crate::host::write_private(record, &text).with_context(|| {
            format!("cannot record the host's network in `{}`", record.display())
        })?;
        Ok(before)
    }

    /// Puts everything back; what fails is said, the rest is still done.
    pub fn restore(self, proxy: &berth_service_proxy::Config) {
        let failed = |what: &str, error: &dyn std::error::Error| {
            warn!(error = crate::host::chain(error), "cannot {what}");
        };
        if let Err(error) = berth_service_proxy::cleanup(proxy) {
            failed("remove the service rules", &error);
        }
        if let Err(error) = berth_cni_portmap::remove_all() {
            failed("remove the host port rules", &error);
        }
        if let Err(error) = berth_cni_bridge::remove_masquerade(NETWORK) {
            failed("remove the masquerade rules", &error);
        }
        if let Err(error) = self.restore_links() {
            failed("remove the node's links and addresses", error.as_ref());
        }
        for (path, before) in &self.before.sysctls {
            // A read-only one that nobody changed needs no write.
            if value(path).as_ref() != Some(before)
                && let Err(error) = std::fs::write(path, before)
            {
                failed(&format!("restore `{path}`"), &error);
            }
        }
        if let Err(error) = std::fs::remove_file(&self.record) {
            failed("remove the record of the host's network", &error);
        }
    }

    fn restore_links(&self) -> anyhow::Result<()> {
        let mut socket = Socket::open()?;
        if let Some(lo) = socket.link("lo")? {
            socket.delete_address(lo.index, self.before.dns, host_prefix(self.before.dns))?;
        }
        if !self.before.bridge_was_there {
            socket.delete_link(BRIDGE)?;
        }
        Ok(())
    }
}

/// The value of a sysctl; none where the kernel has no such key.
fn value(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
