//! Services.

use std::net::IpAddr;

use serde_json::Value;

use super::field::FieldError;
use super::names;
use super::rules::{Faults, Unique, items, text};
use crate::strategy::same;

/// What `node/service-proxy` does not follow; of `internalTrafficPolicy` only Local.
const UNSERVED: [&str; 7] = [
    "allocateLoadBalancerNodePorts",
    "externalIPs",
    "internalTrafficPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "trafficDistribution",
];

pub(super) fn check(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let spec = &new["spec"];
    let kind = text(spec, "type");
    let headless = spec["clusterIPs"][0] == "None" || spec["clusterIP"] == "None";
    let count = spec["ports"].as_array().map_or(0, Vec::len);
    if count == 0 && !headless && kind != "ExternalName" {
        faults.required("spec.ports", "");
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        faults.invalid(
            "spec.clusterIPs[0]",
            &"None".into(),
            &format!("may not be set to 'None' for {kind} services"),
        );
    }
    if kind == "ExternalName" {
        external_name(spec, faults);
    }
    ports(spec, kind, faults);
    faults.labels("spec.selector", &spec["selector"]);
    affinity(spec, faults);
    addresses(spec, faults);
    faults.required_one_of(
        "spec.type",
        kind,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    traffic(spec, kind, faults);
    unserved(spec, old.map(|old| &old["spec"]), faults);
    if let Some(old) = old {
        keep_addresses(spec, &old["spec"], faults);
    }
}

fn external_name(spec: &Value, faults: &mut Faults) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let value = &spec[field];
        if !value.is_null() && value.as_array().is_none_or(|l| !l.is_empty()) {
            faults.forbidden(
                format!("spec.{field}"),
                "may not be set for ExternalName services",
            );
        }
    }
    let name = text(spec, "externalName").trim_end_matches('.');
    if name.is_empty() {
        faults.required("spec.externalName", "");
    } else {
        faults.grammar("spec.externalName", name, names::dns1123_subdomain(name));
    }
}

fn ports(spec: &Value, kind: &str, faults: &mut Faults) {
    let many = spec["ports"].as_array().is_some_and(|l| l.len() > 1);
    let mut names_seen = Unique::default();
    let mut seen: Vec<(i64, &str)> = Vec::new();
    let mut node_ports: Vec<(i64, &str)> = Vec::new();
    for (path, port) in items(spec, "spec", "ports") {
        let name = text(port, "name");
        if name.is_empty() && many {
            faults.required(format!("{path}.name"), "");
        } else if !name.is_empty() {
            faults.grammar(&format!("{path}.name"), name, names::dns1123_label(name));
            if !names_seen.insert(name) {
                faults.add(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let number = port["port"].as_i64().unwrap_or_default();
        faults.port(&format!("{path}.port"), number);
        let protocol = text(port, "protocol");
        faults.required_one_of(
            &format!("{path}.protocol"),
            protocol,
            &["SCTP", "TCP", "UDP"],
        );
        faults.port_or_name(&format!("{path}.targetPort"), &port["targetPort"]);
        let node_port = port["nodePort"].as_i64().unwrap_or_default();
        if node_port != 0 && kind == "ClusterIP" {
            faults.forbidden(
                format!("{path}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            );
        } else if node_port != 0 && node_ports.contains(&(node_port, protocol)) {
            faults.add(FieldError::duplicate(format!("{path}.nodePort"), node_port));
        }
        node_ports.push((node_port, protocol));
        if seen.contains(&(number, protocol)) {
            let mut shown = serde_json::Map::new();
            shown.insert("port".into(), number.into());
            shown.insert("protocol".into(), protocol.into());
            faults.add(FieldError::duplicate(path, Value::Object(shown)));
        }
        seen.push((number, protocol));
    }
}

fn affinity(spec: &Value, faults: &mut Faults) {
    let affinity = text(spec, "sessionAffinity");
    faults.required_one_of("spec.sessionAffinity", affinity, &["ClientIP", "None"]);
    if affinity == "ClientIP" {
        let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        match timeout.as_i64() {
            None => faults.required(path, ""),
            Some(1..=86_400) => {}
            Some(_) => faults.invalid(path, timeout, "must be greater than 0 and less than 86400"),
        }
    }
}

fn addresses(spec: &Value, faults: &mut Faults) {
    let ips = &spec["clusterIPs"];
    let first = ips[0].as_str().unwrap_or_default();
    let single = text(spec, "clusterIP");
    if !single.is_empty() && first.is_empty() {
        faults.required("spec.clusterIPs", "");
    } else if single != first {
        let why = if single.is_empty() {
            "must be empty when `clusterIP` is not specified"
        } else {
            "first value must match `clusterIP`"
        };
        faults.invalid("spec.clusterIPs", ips, why);
    }
    for (path, ip) in items(spec, "spec", "clusterIPs") {
        let ip = ip.as_str().unwrap_or_default();
        if ip != "None" && ip.parse::<IpAddr>().is_err() {
            faults.invalid(
                path,
                &ip.into(),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
    for (path, family) in items(spec, "spec", "ipFamilies") {
        faults.one_of(
            &path,
            family.as_str().unwrap_or_default(),
            &["IPv4", "IPv6"],
        );
    }
    if let Some(policy) = spec["ipFamilyPolicy"].as_str() {
        faults.one_of(
            "spec.ipFamilyPolicy",
            policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        );
    }
    for (path, ip) in items(spec, "spec", "externalIPs") {
        let ip = ip.as_str().unwrap_or_default();
        if ip.parse::<IpAddr>().is_err() {
            faults.invalid(
                path,
                &ip.into(),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
}

fn traffic(spec: &Value, kind: &str, faults: &mut Faults) {
    if let Some(policy) = spec["internalTrafficPolicy"].as_str() {
        faults.one_of("spec.internalTrafficPolicy", policy, &["Cluster", "Local"]);
    }
    let has_ips = spec["externalIPs"]
        .as_array()
        .is_some_and(|l| !l.is_empty());
    let external = matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && has_ips);
    if let Some(policy) = spec["externalTrafficPolicy"].as_str() {
        if external {
            faults.one_of("spec.externalTrafficPolicy", policy, &["Cluster", "Local"]);
        } else {
            faults.invalid(
                "spec.externalTrafficPolicy",
                &policy.into(),
                "may only be set for externally-accessible services",
            );
        }
    }
}

/// Fields that the service proxy does not follow are refused, not stored and forgotten; what
/// stands in the object already stays. A Service of another type is refused by its type.
fn unserved(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    if matches!(text(new, "type"), "NodePort" | "LoadBalancer") {
        return;
    }
    for field in UNSERVED {
        let value = &new[field];
        let asks = match field {
            "internalTrafficPolicy" => value == "Local",
            _ => !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()),
        };
        if asks && old.is_none_or(|old| old[field] != *value) {
            let path = format!("spec.{field}");
            faults.invalid(path, value, "this is not served yet");
        }
    }
}

/// An address that was given stays, unless the Service leaves ExternalName.
fn keep_addresses(new: &Value, old: &Value, faults: &mut Faults) {
    if text(new, "type") == "ExternalName" || text(old, "type") == "ExternalName" {
        return;
    }
    let had = old["clusterIPs"][0]
        .as_str()
        .is_some_and(|ip| !ip.is_empty());
    if had && !same(new["clusterIPs"].get(0), old["clusterIPs"].get(0)) {
        let why = if new["clusterIPs"].get(0).is_none() {
            "primary clusterIP can not be unset"
        } else {
            "may not change once set"
        };
        faults.invalid("spec.clusterIPs[0]", &new["clusterIPs"], why);
    }
}
