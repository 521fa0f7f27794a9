//! The cells of each kind's rows, in the order of its columns.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::age::since;
use super::pod;
use crate::gvk::Resource;
use crate::meta;
use crate::selector::LabelSelector;

pub(super) fn of(resource: &Resource, object: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let name: Value = meta::name(object).into();
    let age: Value = since(&object["metadata"]["creationTimestamp"], now).into();
    match (resource.group, resource.plural) {
        ("", "pods") => pod::cells(object, now),
        ("apps", "deployments") => deployment(object, name, age),
        ("apps", "replicasets") => replica_set(object, name, age),
        ("", "services") => service(object, name, age),
        ("", "nodes") => node(object, name, age),
        ("" | "events.k8s.io", "events") => event(&crate::event::to_core(object), name, now),
        ("discovery.k8s.io", "endpointslices") => endpoint_slice(object, name, age),
        ("coordination.k8s.io", "leases") => {
            vec![name, text(object, "/spec/holderIdentity").into(), age]
        }
        ("", "namespaces") => vec![name, text(object, "/status/phase").into(), age],
        ("", "secrets") => {
            vec![
                name,
                text(object, "/type").into(),
                count(object, "/data").into(),
                age,
            ]
        }
        ("", "configmaps") => {
            let entries = count(object, "/data") + count(object, "/binaryData");
            vec![name, entries.into(), age]
        }
        ("", "serviceaccounts") => vec![name, age],
        _ => vec![name, object["metadata"]["creationTimestamp"].clone()],
    }
}

/// The text at a JSON pointer, or empty.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The number at a JSON pointer, or zero.
pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// The items of the list at a JSON pointer.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// `text`, or `instead` when it is empty.
pub(super) fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

fn count(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map_or(0, |m| m.len())
}

/// Names and images of a template's containers.
fn containers(object: &Value) -> [Value; 2] {
    let containers = list(object, "/spec/template/spec/containers");
    ["/name", "/image"].map(|field| {
        let all: Vec<&str> = containers.iter().map(|c| text(c, field)).collect();
        all.join(",").into()
    })
}

/// A `LabelSelector` as a query; what cannot be read says so.
fn selector(object: &Value, empty: &str) -> Value {
    match LabelSelector::from_value(&object["spec"]["selector"]) {
        Ok(selector) => or(&selector.to_string(), empty).into(),
        Err(_) => "<invalid>".into(),
    }
}

fn deployment(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = number(object, "/status/readyReplicas");
    let desired = number(object, "/spec/replicas");
    let [names, images] = containers(object);
    vec![
        name,
        format!("{ready}/{desired}").into(),
        number(object, "/status/updatedReplicas").into(),
        number(object, "/status/availableReplicas").into(),
        age,
        names,
        images,
        selector(object, ""),
    ]
}

fn replica_set(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let [names, images] = containers(object);
    vec![
        name,
        number(object, "/spec/replicas").into(),
        number(object, "/status/replicas").into(),
        number(object, "/status/readyReplicas").into(),
        age,
        names,
        images,
        selector(object, "<none>"),
    ]
}

fn service(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/spec/ports")
        .iter()
        .map(|port| {
            let protocol = text(port, "/protocol");
            match (number(port, "/port"), number(port, "/nodePort")) {
                (port, 0) => format!("{port}/{protocol}"),
                (port, node_port) => format!("{port}:{node_port}/{protocol}"),
            }
        })
        .collect();
    let labels = LabelSelector::from_map(&object["spec"]["selector"]).to_string();
    vec![
        name,
        text(object, "/spec/type").into(),
        or(text(object, "/spec/clusterIPs/0"), "<none>").into(),
        external_address(object).into(),
        or(&ports.join(","), "<none>").into(),
        age,
        or(&labels, "<none>").into(),
    ]
}

fn external_address(object: &Value) -> String {
    let mut addresses: Vec<&str> = Vec::new();
    match text(object, "/spec/type") {
        "ExternalName" => return text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            for ingress in list(object, "/status/loadBalancer/ingress") {
                addresses.push(or(text(ingress, "/ip"), text(ingress, "/hostname")));
            }
            addresses.sort_unstable();
            addresses.dedup();
        }
        "ClusterIP" | "NodePort" => {}
        _ => return "<unknown>".to_owned(),
    }
    addresses.extend(
        list(object, "/spec/externalIPs")
            .iter()
            .filter_map(Value::as_str),
    );
    match (addresses.is_empty(), text(object, "/spec/type")) {
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => "<none>".to_owned(),
        (false, _) => addresses.join(","),
    }
}

fn node(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = list(object, "/status/conditions")
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let info = |field: &str| text(object, &format!("/status/nodeInfo/{field}"));
    let address = |kind: &str| {
        let found = list(object, "/status/addresses")
            .iter()
            .find(|a| a["type"] == kind);
        found.map_or("<none>", |a| text(a, "/address"))
    };
    let mut kernel = or(info("kernelVersion"), "<unknown>").to_owned();
    if !info("architecture").is_empty() {
        kernel.push_str(&format!(" ({})", info("architecture")));
    }
    vec![
        name,
        status.into(),
        or(&roles(object).join(","), "<none>").into(),
        age,
        info("kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(info("osImage"), "<unknown>").into(),
        kernel.into(),
        or(info("containerRuntimeVersion"), "<unknown>").into(),
    ]
}

/// Roles from `node-role.kubernetes.io/<role>` and `kubernetes.io/role`.
fn roles(object: &Value) -> Vec<String> {
    let mut roles: Vec<String> = object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role.to_owned()),
                None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort();
    roles.dedup();
    roles
}

fn event(object: &Value, name: Value, now: DateTime<Utc>) -> Vec<Value> {
    let first = match since(&object["firstTimestamp"], now) {
        age if age == "<unknown>" => since(&object["eventTime"], now),
        age => age,
    };
    let mut last = match since(&object["lastTimestamp"], now) {
        age if age == "<unknown>" => first.clone(),
        age => age,
    };
    let mut count = number(object, "/count").max(1);
    if object["series"].is_object() {
        last = since(&object["series"]["lastObservedTime"], now);
        count = number(object, "/series/count");
    }
    let mut target = text(object, "/involvedObject/kind").to_lowercase();
    let about = text(object, "/involvedObject/name");
    if !about.is_empty() {
        target = format!("{target}/{about}");
    }
    let component = or(
        text(object, "/source/component"),
        text(object, "/reportingComponent"),
    );
    let host = or(
        text(object, "/source/host"),
        text(object, "/reportingInstance"),
    );
    let source = match host {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    vec![
        last.into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        target.into(),
        text(object, "/involvedObject/fieldPath").into(),
        source.into(),
        text(object, "/message").trim().into(),
        first.into(),
        count.into(),
        name,
    ]
}

fn endpoint_slice(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/ports")
        .iter()
        .map(|port| match port["port"].as_i64() {
            Some(number) => number.to_string(),
            None => port["name"].as_str().unwrap_or("*").to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    vec![
        name,
        text(object, "/addressType").into(),
        shortened(&ports).into(),
        shortened(&addresses).into(),
        age,
    ]
}

/// At most three items, and how many more there are.
fn shortened(items: &[String]) -> String {
    match items.len() {
        0 => "<unset>".to_owned(),
        1..=3 => items.join(","),
        all => format!("{} + {} more...", items[..3].join(","), all - 3),
    }
}

/// The row condition of a pod that will not run again.
pub(super) fn completed(reason: &str, message: &str) -> Value {
    json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}])
}
