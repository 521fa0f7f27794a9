//! The CNI plugin `portmap`: ports of the host lead to ports of the container.
//!
//! One nftables table with two maps serves all containers; an ADD adds elements
//! to them in one transaction and a DEL takes out those that carry the
//! container's id. Only packets to a local address are translated, so forwarded
//! traffic to the same port is untouched (CVE-2025-67499).

mod config;
mod rules;

use berth_cni::{Call, CniError, CniResult, Code, IpConfig, Plugin};
use berth_netlink::nft;

use config::Config;

/// The plugin; its type is `portmap`.
pub struct Portmap;

impl Plugin for Portmap {
    fn kind(&self) -> &'static str {
        "portmap"
    }

    fn add(&self, call: &Call<'_>) -> Result<CniResult, CniError> {
        let previous = call.config.prev_result()?.ok_or_else(|| {
            CniError::new(
                Code::InvalidConfig,
                "portmap: must be chained after another plugin",
            )
        })?;
        let config = Config::from_call(call)?;
        if config.mappings.is_empty() {
            return Ok(previous);
        }
        let bridge = previous
            .interfaces
            .iter()
            .find(|i| i.sandbox.is_empty())
            .map(|i| i.name.as_str());
        if let Some(bridge) = bridge {
            // Only our bridge may carry packets from 127.0.0.0/8, and the table drops
            // what a neighbour on it sends there (CVE-2020-8558).
            let key = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
            std::fs::write(&key, "1").map_err(|e| {
                CniError::caused(Code::Kernel, format!("portmap: cannot set {key}"), e)
            })?;
        }
        let targets: Vec<_> = previous.ips.iter().filter_map(IpConfig::parse).collect();
        nft::apply(
            "map host ports",
            &rules::add(&config, &call.container_id, &targets, bridge)?,
        )
        .map_err(|e| {
            CniError::from_source(
                Code::Kernel,
                "portmap: cannot map host ports (is one taken already?)",
                &e,
            )
        })?;
        Ok(previous)
    }

    fn del(&self, call: &Call<'_>) -> Result<(), CniError> {
        if Config::from_call(call)?.mappings.is_empty() {
            return Ok(());
        }
        let Ok(listing) = nft::list("list host ports", &["table", "inet", rules::TABLE]) else {
            return Ok(()); // no table: nothing was ever mapped
        };
        let ruleset = rules::remove(&listing, &call.container_id)?;
        if ruleset.is_empty() {
            return Ok(());
        }
        nft::apply("unmap host ports", &ruleset).map_err(|e| {
            CniError::from_source(Code::Kernel, "portmap: cannot unmap host ports", &e)
        })
    }

    fn check(&self, call: &Call<'_>) -> Result<(), CniError> {
        if Config::from_call(call)?.mappings.is_empty() {
            return Ok(());
        }
        let held = nft::list("list host ports", &["table", "inet", rules::TABLE])
            .ok()
            .and_then(|listing| rules::remove(&listing, &call.container_id).ok())
            .is_some_and(|ruleset| !ruleset.is_empty());
        if held {
            Ok(())
        } else {
            Err(CniError::new(
                Code::CheckFailed,
                "portmap: the host ports are not mapped",
            ))
        }
    }
}

/// Removes the table with every mapping; for a node that stops for good.
///
/// # Errors
/// nft's refusal.
pub fn remove_all() -> Result<(), nft::NftError> {
    let table = rules::TABLE;
    nft::apply(
        "remove the host port table",
        &format!("table inet {table}\ndelete table inet {table}\n"),
    )
}
