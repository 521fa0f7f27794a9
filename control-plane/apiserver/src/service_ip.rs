//! Cluster addresses of Services.
//!
//! An address in use is a key `/internal/service-ips/<address>` which is made and removed in
//! the same transaction as its Service: two Services can never get one address, and none is
//! lost by a crash.

use std::net::Ipv4Addr;

use berth_api::{
    meta,
    status::{self, Status},
    validate::FieldError,
};
use berth_store::{Op, Range, Txn};
use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};

use crate::{config::Config, handler::put_new, registry::ObjectRef, server::Api};

const PREFIX: &str = "/internal/service-ips/";
/// Addresses drawn by chance before the range is searched in order.
const DRAWS: usize = 16;

fn key(ip: Ipv4Addr) -> String {
    format!("{PREFIX}{ip}")
}

/// The addresses of the service range without the network address and the last one: the
/// first, how many, and how many at the start are left to explicit requests (stock: a
/// sixteenth of the range, at least 16, at most 256).
fn bounds(config: &Config) -> (u32, u32, u32) {
    let (network, prefix) = config.service_cidr;
    let size = 1_u32
        .checked_shl(32 - u32::from(prefix))
        .unwrap_or(u32::MAX);
    let usable = size.saturating_sub(2).max(1);
    let reserved = (size / 16).clamp(16, 256).min(usable / 2);
    (u32::from(network) + 1, usable, reserved)
}

fn contains(config: &Config, ip: Ipv4Addr) -> bool {
    let (first, usable, _) = bounds(config);
    (first..first + usable).contains(&u32::from(ip))
}

/// Gives a new Service its addresses: the one it asks for, a free one, or none.
pub async fn allocate(
    api: &Api,
    target: &ObjectRef<'_>,
    service: &mut Value,
    txn: &mut Txn,
) -> Result<(), Status> {
    let resource = target.resource;
    if !resource.group.is_empty() || resource.plural != "services" {
        return Ok(());
    }
    check_type(target, service)?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" || spec["clusterIP"] == "None" {
        return Ok(());
    }
    let asked = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    let ip = if asked.is_empty() {
        find_free(api).await?
    } else {
        let ip = asked.parse().ok().filter(|ip| contains(&api.config, *ip));
        let ip = ip.ok_or_else(|| {
            refuse(
                target,
                &asked,
                "must be a valid IP address of the service range",
            )
        })?;
        let used = api.registry.range(one(ip)).await;
        if used.is_ok_and(|page| !page.entries.is_empty()) {
            return Err(refuse(
                target,
                &asked,
                "failed to allocate IP: provided IP is already allocated",
            ));
        }
        ip
    };
    service["spec"]["clusterIP"] = ip.to_string().into();
    service["spec"]["clusterIPs"] = json!([ip.to_string()]);
    reserve(
        ip,
        &format!("{}/{}", target.namespace, meta::name(service)),
        txn,
    );
    Ok(())
}

/// Types that this version does not serve are refused by name.
fn check_type(target: &ObjectRef, service: &Value) -> Result<(), Status> {
    let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP");
    if matches!(kind, "ClusterIP" | "ExternalName") {
        return Ok(());
    }
    let known = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let error = if known.contains(&kind) {
        FieldError::invalid("spec.type", kind, "this type of Service is not served yet")
    } else {
        FieldError::not_supported("spec.type", kind, &known)
    };
    Err(status::invalid(target.resource, target.name, &[error]))
}

fn refuse(target: &ObjectRef, asked: &str, why: &str) -> Status {
    let error = FieldError::invalid("spec.clusterIPs", json!([asked]), why);
    status::invalid(target.resource, target.name, &[error])
}

/// Takes an address in a transaction.
pub fn reserve(ip: Ipv4Addr, owner: &str, txn: &mut Txn) {
    let op = Op::Put {
        key: key(ip),
        value: Bytes::copy_from_slice(owner.as_bytes()),
        ttl: None,
    };
    put_new(key(ip), op, txn);
}

/// The writes that give back the addresses of a Service.
pub fn release(service: &Value) -> Vec<Op> {
    let ips = service["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten();
    ips.filter_map(|ip| ip.as_str()?.parse::<Ipv4Addr>().ok())
        .map(|ip| Op::Delete { key: key(ip) })
        .collect()
}

fn one(ip: Ipv4Addr) -> Range {
    Range {
        prefix: key(ip),
        limit: 1,
        ..Range::default()
    }
}

async fn find_free(api: &Api) -> Result<Ipv4Addr, Status> {
    let (first, usable, reserved) = bounds(&api.config);
    let range = Range {
        prefix: PREFIX.to_owned(),
        ..Range::default()
    };
    let page = api.registry.range(range).await;
    let page = page.map_err(crate::registry::read_status)?;
    let used: std::collections::HashSet<&str> = page
        .entries
        .iter()
        .filter_map(|entry| entry.key.strip_prefix(PREFIX))
        .collect();
    let is_free = |offset: u32| {
        let ip = Ipv4Addr::from(first + offset);
        let free = ip != api.config.cluster_dns && !used.contains(ip.to_string().as_str());
        free.then_some(ip)
    };
    let drawn = (0..DRAWS).find_map(|_| is_free(rand::rng().random_range(reserved..usable)));
    drawn
        .or_else(|| (reserved..usable).chain(0..reserved).find_map(is_free))
        .ok_or_else(|| status::internal("failed to allocate a serviceIP: range is full"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_and_given_back_by_key() {
        let ip = Ipv4Addr::new(10, 96, 0, 7);
        let mut txn = Txn::default();
        reserve(ip, "default/web", &mut txn);
        assert_eq!(
            (txn.compare[0].key.as_str(), txn.compare[0].modified),
            (key(ip).as_str(), 0)
        );
        let service = json!({"spec": {"clusterIPs": ["10.96.0.7"]}});
        let ops = release(&service);
        assert_eq!(ops.len(), 1);
        assert_eq!(ops[0].key(), key(ip));
        assert!(release(&json!({"spec": {"clusterIPs": ["None"]}})).is_empty());
    }

    #[test]
    fn the_range_leaves_a_static_band() {
        let config = Config::new("/nowhere".into(), Ipv4Addr::LOCALHOST.into());
        let (first, usable, reserved) = bounds(&config);
        assert_eq!(Ipv4Addr::from(first), Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!((usable, reserved), (65534, 256));
        assert!(!contains(&config, Ipv4Addr::new(10, 97, 0, 0)));
    }
}
