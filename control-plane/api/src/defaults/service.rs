//! Defaults of Services.

use serde_json::{Value, json};

use super::{is_unset, items_mut, object_or_new, set_default};

pub(super) fn apply(service: &mut Value) {
    let Some(spec) = object_or_new(service, "spec") else {
        return;
    };
    for port in items_mut(spec, "ports") {
        if let Some(port) = port.as_object_mut() {
            set_default(port, "protocol", "TCP");
            let target = port.get("targetPort");
            if is_unset(target) || target.and_then(Value::as_i64) == Some(0) {
                let number = port.get("port").cloned().unwrap_or_else(|| 0.into());
                port.insert("targetPort".to_owned(), number);
            }
        }
    }
    let Some(map) = spec.as_object_mut() else {
        return;
    };
    set_default(map, "sessionAffinity", "None");
    if map["sessionAffinity"] == "None" {
        map.remove("sessionAffinityConfig");
    } else if map
        .get("sessionAffinityConfig")
        .is_none_or(|c| c["clientIP"]["timeoutSeconds"].is_null())
    {
        map.insert(
            "sessionAffinityConfig".to_owned(),
            json!({"clientIP": {"timeoutSeconds": 10800}}),
        );
    }
    set_default(map, "type", "ClusterIP");
    let kind = map["type"].as_str().unwrap_or_default().to_owned();
    let external_ips = map
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_some_and(|l| !l.is_empty());
    if kind == "NodePort" || kind == "LoadBalancer" || (kind == "ClusterIP" && external_ips) {
        set_default(map, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        set_default(map, "internalTrafficPolicy", "Cluster");
        address_families(map);
    }
    if kind == "LoadBalancer" {
        set_default(map, "allocateLoadBalancerNodePorts", true);
    }
}

/// The families of a cluster with IPv4 only. A headless Service without a
/// selector is told to be dual-stack, since nobody knows its endpoints.
fn address_families(spec: &mut serde_json::Map<String, Value>) {
    let headless = spec.get("clusterIP").is_some_and(|ip| ip == "None");
    let selector = spec
        .get("selector")
        .and_then(Value::as_object)
        .is_some_and(|s| !s.is_empty());
    if headless && !selector && !spec.contains_key("ipFamilyPolicy") {
        set_default(spec, "ipFamilyPolicy", "RequireDualStack");
        set_default(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
        return;
    }
    set_default(spec, "ipFamilyPolicy", "SingleStack");
    if spec
        .get("ipFamilies")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
    }
}
