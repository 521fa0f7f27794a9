//! EndpointSlices.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::field::FieldError;
use super::names;
use super::rules::{Faults, Unique, items, text};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

pub(super) fn check(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let kind = text(new, "addressType");
    faults.required_one_of("addressType", kind, &["FQDN", "IPv4", "IPv6"]);
    ports(new, faults);
    let endpoints = new["endpoints"].as_array().map_or(0, Vec::len);
    if endpoints > MAX_ENDPOINTS {
        faults.add(FieldError::too_many("endpoints", endpoints, MAX_ENDPOINTS));
        return;
    }
    for (path, endpoint) in items(new, "", "endpoints") {
        let count = endpoint["addresses"].as_array().map_or(0, Vec::len);
        let addresses = format!("{path}.addresses");
        if count == 0 {
            faults.required(addresses, "must contain at least 1 address");
        } else if count > MAX_ADDRESSES {
            faults.add(FieldError::too_many(addresses, count, MAX_ADDRESSES));
        }
        for (path, address) in items(endpoint, &path, "addresses") {
            check_address(&path, kind, address.as_str().unwrap_or_default(), faults);
        }
        if let Some(node) = endpoint["nodeName"].as_str() {
            faults.grammar(
                &format!("{path}.nodeName"),
                node,
                names::dns1123_subdomain(node),
            );
        }
    }
    if let Some(old) = old {
        faults.immutable("addressType", &new["addressType"], &old["addressType"]);
    }
}

fn check_address(path: &str, kind: &str, address: &str, faults: &mut Faults) {
    match kind {
        "IPv4" if address.parse::<Ipv4Addr>().is_err() => {
            faults.invalid(path, &address.into(), "must be an IPv4 address");
        }
        "IPv6" if address.parse::<Ipv6Addr>().is_err() => {
            faults.invalid(path, &address.into(), "must be an IPv6 address");
        }
        "FQDN" => faults.grammar(path, address, names::dns1123_subdomain(address)),
        _ => {}
    }
}

fn ports(new: &Value, faults: &mut Faults) {
    let count = new["ports"].as_array().map_or(0, Vec::len);
    if count > MAX_PORTS {
        faults.add(FieldError::too_many("ports", count, MAX_PORTS));
        return;
    }
    let mut seen = Unique::default();
    for (path, port) in items(new, "", "ports") {
        let name = text(port, "name");
        if !name.is_empty() {
            faults.grammar(&format!("{path}.name"), name, names::dns1123_label(name));
        }
        if !seen.insert(name) {
            faults.add(FieldError::duplicate(format!("{path}.name"), name));
        }
        faults.required_one_of(
            &format!("{path}.protocol"),
            text(port, "protocol"),
            &["SCTP", "TCP", "UDP"],
        );
    }
}
