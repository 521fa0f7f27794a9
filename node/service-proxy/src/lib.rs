//! Services by nftables: a packet to a cluster address and port is translated to
//! one of the Service's ready endpoints.
//!
//! One verdict map leads from (address, protocol, port) to a chain a Service port,
//! so the cost of a packet does not grow with the number of Services. A change
//! applies only what differs from the rules in force, in one transaction.

mod model;
mod rules;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_netlink::nft::{self, NftError};
use berth_services::Services;
use k8s_openapi::api::core::v1::Service;
use tracing::{info, warn};

pub use model::{Protocol, ServicePort};

/// Changes that arrive within this time are applied together.
const GATHER: Duration = Duration::from_millis(10);
/// After a refused transaction the whole table is written anew, this much later.
const RETRY: Duration = Duration::from_secs(1);

/// What the proxy needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The nftables table, in family inet, that it owns as a whole.
    pub table: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            table: "berth_services".into(),
        }
    }
}

/// Why the proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The table could not be removed at the end.
    #[error("cannot remove the service rules")]
    Remove(#[source] NftError),
}

/// Follows Services and EndpointSlices and keeps the rules in step until
/// `shutdown`; the rules stay, so that Services serve while a node agent restarts.
///
/// # Errors
/// None today: what fails is logged and tried again.
pub async fn run(
    mut services: Services,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ProxyError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut applied = rules::Applied::default();
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            changed = services.changed() => if !changed { return Ok(()) },
        }
        tokio::time::sleep(GATHER).await;
        let (all, slices) = services.now();
        let desired = model::service_ports(&all, &slices);
        while let Err(error) = apply(&config.table, &mut applied, &desired).await {
            warn!(%error, "service rules not applied; writing the whole table");
            applied = rules::Applied::default();
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

/// Removes every rule of the proxy; for a node that stops for good.
///
/// # Errors
/// nft's refusal.
pub fn cleanup(config: &Config) -> Result<(), ProxyError> {
    let table = &config.table;
    nft::apply(
        "remove the service rules",
        &format!("table inet {table}\ndelete table inet {table}\n"),
    )
    .map_err(ProxyError::Remove)
}

async fn apply(
    table: &str,
    applied: &mut rules::Applied,
    desired: &[ServicePort],
) -> Result<(), NftError> {
    let Some((ruleset, next)) = applied.step(table, desired) else {
        return Ok(());
    };
    let count = next.len();
    // nft is a process: its start must not hold up the runtime.
    let done = tokio::task::spawn_blocking(move || nft::apply("serve Services", &ruleset)).await;
    match done {
        Ok(result) => result?,
        Err(join) => std::panic::resume_unwind(join.into_panic()),
    }
    info!(ports = count, "service rules applied");
    *applied = next;
    Ok(())
}

/// Addresses of a Service that are cluster addresses (not `None`, not empty).
fn cluster_addresses(service: &Arc<Service>) -> Vec<IpAddr> {
    let spec = service.spec.clone().unwrap_or_default();
    let all = spec
        .cluster_ips
        .unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
    all.iter().filter_map(|ip| ip.parse().ok()).collect()
}
