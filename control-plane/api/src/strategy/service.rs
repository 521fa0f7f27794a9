//! Services: addresses and ports that the server allocated stay over updates
//! that do not name them, and go when the type has no use for them.

use serde_json::{Value, json};

use super::same;

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["spec"][field].as_str().unwrap_or_default()
}

fn needs_cluster_ip(service: &Value) -> bool {
    text(service, "type") != "ExternalName"
}

fn needs_node_port(service: &Value) -> bool {
    matches!(text(service, "type"), "NodePort" | "LoadBalancer")
}

fn unset(service: &mut Value, field: &str) {
    if let Some(spec) = service["spec"].as_object_mut() {
        spec.remove(field);
    }
}

/// `clusterIP` alone implies `clusterIPs`.
pub(super) fn normalise_addresses(service: &mut Value) {
    let ip = text(service, "clusterIP").to_owned();
    let listed = service["spec"]["clusterIPs"]
        .as_array()
        .is_some_and(|l| !l.is_empty());
    if !ip.is_empty() && !listed {
        service["spec"]["clusterIPs"] = json!([ip]);
    }
}

/// Takes over allocated values that the update leaves out.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if text(new, "clusterIP").is_empty() && !text(old, "clusterIP").is_empty() {
            new["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
        }
        let same_ip = new["spec"]["clusterIP"] == old["spec"]["clusterIP"];
        if new["spec"].get("clusterIPs").is_none()
            && same_ip
            && !old["spec"]["clusterIPs"].is_null()
        {
            new["spec"]["clusterIPs"] = old["spec"]["clusterIPs"].clone();
        }
    }
    normalise_addresses(new);
    if !(needs_node_port(new) && needs_node_port(old)) {
        return;
    }
    let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port
            .get("nodePort")
            .and_then(Value::as_i64)
            .unwrap_or_default()
            != 0
        {
            continue;
        }
        let twin = before
            .iter()
            .find(|b| b["port"] == port["port"] && b["protocol"] == port["protocol"]);
        if let Some(number) = twin.and_then(|b| b.get("nodePort")) {
            port["nodePort"] = number.clone();
        }
    }
}

/// Drops what a changed type has no use for, when the client did not touch it.
pub(super) fn drop_for_type(new: &mut Value, old: &Value) {
    let unchanged = |new: &Value, field: &str| same(new["spec"].get(field), old["spec"].get(field));
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if unchanged(new, "clusterIP") && unchanged(new, "clusterIPs") {
            unset(new, "clusterIP");
            unset(new, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if unchanged(new, field) {
                unset(new, field);
            }
        }
    }
    if needs_node_port(old) && !needs_node_port(new) {
        let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
        for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
            let known = before.iter().any(|b| b["nodePort"] == port["nodePort"]);
            if let Some(map) = port.as_object_mut().filter(|_| known) {
                map.remove("nodePort");
            }
        }
    }
    let external = |service: &Value| {
        let has_ips = service["spec"]["externalIPs"]
            .as_array()
            .is_some_and(|l| !l.is_empty());
        needs_node_port(service) || (text(service, "type") == "ClusterIP" && has_ips)
    };
    if external(old) && !external(new) && unchanged(new, "externalTrafficPolicy") {
        unset(new, "externalTrafficPolicy");
    }
    if text(old, "type") == "LoadBalancer" && text(new, "type") != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(new, field) {
                unset(new, field);
            }
        }
    }
    if text(new, "type") != "LoadBalancer" {
        new["status"]["loadBalancer"] = json!({});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_values_stay() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        keep_allocated(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.7"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
        assert!(new["spec"]["ports"][1].get("nodePort").is_none());
    }

    #[test]
    fn type_changes_drop() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        drop_for_type(&mut new, &old);
        assert_eq!(new["spec"]["ports"], json!([{"port": 80}]));
        assert!(new["spec"].get("externalTrafficPolicy").is_none());
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
        new["spec"]["type"] = "ExternalName".into();
        drop_for_type(&mut new, &old);
        assert!(new["spec"].get("clusterIP").is_none());
    }
}
