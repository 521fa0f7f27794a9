//! The defaults that the stock server sets in code (its OpenAPI documents tell
//! only a part of them). They apply to create, update and patch alike.

mod pod;
mod service;
mod workload;

use base64::Engine;
use serde_json::{Map, Value};

use crate::gvk::Resource;

pub use pod::{apply_spec as apply_pod_spec, image_pull_policy};

/// Sets every default of the object's kind.
pub fn apply(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.plural) {
        ("", "pods") => pod::apply(object),
        ("", "services") => service::apply(object),
        ("", "namespaces") => namespace(object),
        ("", "nodes") => node(object),
        ("", "secrets") => secret(object),
        ("apps", "deployments") => workload::deployment(object),
        ("apps", "replicasets") => workload::replica_set(object),
        ("discovery.k8s.io", "endpointslices") => endpoint_slice(object),
        _ => {}
    }
}

/// The object at `key`, when it is one.
fn object_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(key)?.as_object_mut()
}

/// The object at `key`, made when absent; `None` when it is something else.
fn object_or_new<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let made = value
        .as_object_mut()?
        .entry(key)
        .or_insert_with(|| Value::Object(Map::new()));
    if made.is_null() {
        *made = Value::Object(Map::new());
    }
    made.is_object().then_some(made)
}

/// The items of the list at `key`.
fn items_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Whether a value stands for "not set": absent, null, empty text.
fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

/// Sets a field that is unset.
fn set_default(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if is_unset(map.get(key)) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets a number that is unset or zero (fields where Go has no pointer).
fn set_nonzero(map: &mut Map<String, Value>, key: &str, value: i64) {
    if is_unset(map.get(key)) || map.get(key).and_then(Value::as_i64) == Some(0) {
        map.insert(key.to_owned(), value.into());
    }
}

fn namespace(object: &mut Value) {
    let name = crate::meta::name(object).to_owned();
    if !name.is_empty()
        && let Some(metadata) = object_or_new(object, "metadata")
        && let Some(labels) = object_or_new(metadata, "labels")
    {
        labels["kubernetes.io/metadata.name"] = name.into();
    }
    if let Some(Value::Object(status)) = object_or_new(object, "status") {
        set_default(status, "phase", "Active");
    }
}

fn node(object: &mut Value) {
    if let Some(status) = object_mut(object, "status")
        && !status.contains_key("allocatable")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        status.insert("allocatable".to_owned(), capacity);
    }
}

/// `stringData` is write-only: it is merged into `data`.
fn secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    set_default(map, "type", "Opaque");
    if let Some(Value::Object(texts)) = map.remove("stringData") {
        let data = map
            .entry("data")
            .or_insert_with(|| Value::Object(Map::new()));
        for (key, text) in texts {
            let bytes = text.as_str().unwrap_or_default().as_bytes();
            data[key] = base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into();
        }
    }
}

fn endpoint_slice(object: &mut Value) {
    for port in items_mut(object, "ports") {
        if let Some(port) = port.as_object_mut() {
            if !port.contains_key("name") {
                port.insert("name".to_owned(), "".into());
            }
            set_default(port, "protocol", "TCP");
        }
    }
}

#[cfg(test)]
mod tests;
