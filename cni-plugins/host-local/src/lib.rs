//! The CNI plugin `host-local`: addresses from ranges, leases as files on this host.
//!
//! The files are those of the reference plugin, so that either can follow the
//! other: `<dataDir>/<network>/<address>` holds the container id and the
//! interface, `last_reserved_ip.<range set>` the address given last, `lock` is
//! locked around every change.

mod config;
mod range;
mod store;

use berth_cni::{Call, CniError, CniResult, Code, IpConfig, Plugin};

use config::Config;
use store::Store;

/// The plugin; its type is `host-local`.
pub struct HostLocal;

impl Plugin for HostLocal {
    fn kind(&self) -> &'static str {
        "host-local"
    }

    fn add(&self, call: &Call<'_>) -> Result<CniResult, CniError> {
        let config = Config::from_call(call)?;
        let store = Store::lock(&config.data_dir, call.config.network())?;
        let mut ips = Vec::new();
        for (index, set) in config.ranges.iter().enumerate() {
            match reserve(&store, index, set, call) {
                Ok(ip) => ips.push(ip),
                Err(error) => {
                    store.release(&call.container_id, &call.ifname)?;
                    return Err(error);
                }
            }
        }
        Ok(CniResult {
            ips,
            routes: config.routes,
            dns: config.dns,
            ..CniResult::default()
        })
    }

    fn del(&self, call: &Call<'_>) -> Result<(), CniError> {
        let config = Config::from_call(call)?;
        match Store::lock_existing(&config.data_dir, call.config.network())? {
            Some(store) => store.release(&call.container_id, &call.ifname),
            None => Ok(()),
        }
    }

    fn check(&self, call: &Call<'_>) -> Result<(), CniError> {
        let config = Config::from_call(call)?;
        let store = Store::lock(&config.data_dir, call.config.network())?;
        if store
            .leases_of(&call.container_id, &call.ifname)?
            .is_empty()
        {
            return Err(CniError::new(
                Code::CheckFailed,
                format!("host-local: no address is leased to {}", call.container_id),
            ));
        }
        Ok(())
    }
}

fn reserve(
    store: &Store,
    index: usize,
    set: &[range::Range],
    call: &Call<'_>,
) -> Result<IpConfig, CniError> {
    let last = store.last_reserved(index);
    for (range, address) in range::candidates(set, last) {
        if store.reserve(address, &call.container_id, &call.ifname)? {
            store.remember_last(index, address)?;
            return Ok(IpConfig {
                address: format!("{address}/{}", range.prefix),
                gateway: Some(range.gateway),
                interface: None,
            });
        }
    }
    let names: Vec<String> = set.iter().map(ToString::to_string).collect();
    Err(CniError::new(
        Code::Exhausted,
        format!(
            "no IP addresses available in range set: {}",
            names.join(", ")
        ),
    ))
}
