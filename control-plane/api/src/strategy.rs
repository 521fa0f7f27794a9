//! What the registry does to an object before it is stored: status and spec
//! kept apart, generation counted, server-owned fields kept. Called after
//! decoding and defaults, before validation.

mod pod;
mod service;

use serde_json::{Value, json};

use crate::gvk::Resource;
use crate::meta;

pub use pod::qos_class;

/// Metadata that only the server writes.
const SERVER_OWNED: [&str; 5] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// Before a create: status cleared, generation set, server-owned fields set.
/// uid, creationTimestamp, name and namespace are the caller's.
pub fn prepare_create(resource: &Resource, object: &mut Value) {
    for field in SERVER_OWNED
        .into_iter()
        .chain(["selfLink", "managedFields", "resourceVersion"])
    {
        meta::unset(object, field);
    }
    match (resource.group, resource.plural) {
        ("", "pods") => {
            meta::set(object, "generation", 1);
            object["status"] = json!({"phase": "Pending", "qosClass": qos_class(object)});
            pod::say_gated(object);
        }
        ("", "services") => {
            object["status"] = json!({"loadBalancer": {}});
            service::normalise_addresses(object);
        }
        ("", "namespaces") => {
            object["status"] = json!({"phase": "Active"});
            add_namespace_finalizer(object);
        }
        ("apps", _) => {
            meta::set(object, "generation", 1);
            object["status"] = json!({});
            if resource.plural == "replicasets" {
                object["status"] = json!({"replicas": 0});
            }
        }
        ("discovery.k8s.io", _) => meta::set(object, "generation", 1),
        _ => {}
    }
}

/// Before an update of the object itself: status and server-owned metadata as
/// they were, generation counted up when the spec changed.
pub fn prepare_update(resource: &Resource, new: &mut Value, old: &Value) {
    keep_server_owned(new, old);
    match (resource.group, resource.plural) {
        ("", "pods") => {
            keep(new, old, "status");
            count_generation(new, old, &["spec"]);
        }
        ("", "services") => {
            keep(new, old, "status");
            service::keep_allocated(new, old);
            service::drop_for_type(new, old);
        }
        ("", "namespaces") => {
            keep(new, old, "status");
            keep(new, old, "spec");
        }
        ("", "nodes") => keep(new, old, "status"),
        ("apps", "deployments") => {
            keep(new, old, "status");
            count_generation(new, old, &["spec", "annotations"]);
        }
        ("apps", "replicasets") => {
            keep(new, old, "status");
            count_generation(new, old, &["spec"]);
        }
        ("discovery.k8s.io", _) => {
            count_generation(new, old, &["endpoints", "ports", "labels", "annotations"]);
        }
        _ => {}
    }
}

/// Before a write of the `status` subresource: all but status as it was.
pub fn prepare_status(resource: &Resource, new: &mut Value, old: &Value) {
    keep_server_owned(new, old);
    keep(new, old, "spec");
    match (resource.group, resource.plural) {
        ("", "pods") => {
            keep_metadata(new, old, "ownerReferences");
            if new["status"]["qosClass"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
            {
                let class = old["status"]["qosClass"].clone();
                if !class.is_null() {
                    new["status"]["qosClass"] = class;
                }
            }
        }
        ("apps", "deployments") => keep_metadata(new, old, "labels"),
        _ => {}
    }
}

/// Before a `finalize` of a Namespace: all but `spec.finalizers` as it was.
pub fn prepare_finalize(new: &mut Value, old: &Value) {
    keep_server_owned(new, old);
    keep(new, old, "status");
}

/// Takes a top-level field from the stored object.
fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else {
        return;
    };
    match old.get(field) {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

fn keep_metadata(new: &mut Value, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) => meta::set(new, field, value.clone()),
        None => meta::unset(new, field),
    }
}

/// Absent server-owned metadata is taken over; present it stays, for
/// validation to refuse a change. Generation is never the client's.
fn keep_server_owned(new: &mut Value, old: &Value) {
    for field in SERVER_OWNED {
        if field == "generation" || new["metadata"].get(field).is_none_or(Value::is_null) {
            keep_metadata(new, old, field);
        }
    }
    meta::unset(new, "selfLink");
    meta::unset(new, "managedFields");
}

fn count_generation(new: &mut Value, old: &Value, fields: &[&str]) {
    let changed = fields.iter().any(|field| match *field {
        "labels" | "annotations" => !same(new["metadata"].get(field), old["metadata"].get(field)),
        _ => !same(new.get(field), old.get(field)),
    });
    if changed {
        let before = old["metadata"]["generation"].as_i64().unwrap_or_default();
        meta::set(new, "generation", before + 1);
    }
}

/// Equality in which absent, null and empty are one.
pub fn same(left: Option<&Value>, right: Option<&Value>) -> bool {
    match (left, right) {
        (Some(Value::Object(l)), Some(Value::Object(r))) => {
            l.iter().all(|(k, v)| same(Some(v), r.get(k)))
                && r.iter()
                    .all(|(k, v)| l.contains_key(k) || same(None, Some(v)))
        }
        (Some(Value::Array(l)), Some(Value::Array(r))) => {
            l.len() == r.len() && l.iter().zip(r).all(|(l, r)| same(Some(l), Some(r)))
        }
        (l, r) => l == r || (is_empty_list(l) && is_empty_list(r)),
    }
}

fn is_empty_list(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// The finalizer that keeps a Namespace until its content is gone.
fn add_namespace_finalizer(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let finalizers = &mut object["spec"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|f| f == "kubernetes") => {}
        Some(list) => list.push("kubernetes".into()),
        None => *finalizers = json!(["kubernetes"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::find;

    #[test]
    fn create_clears_what_is_the_servers() {
        let mut object = json!({"metadata": {"name": "a", "uid": "x", "resourceVersion": "5", "generation": 7},
            "spec": {"replicas": 1}, "status": {"replicas": 9}});
        prepare_create(find("apps", "v1", "deployments").unwrap(), &mut object);
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "generation": 1}, "spec": {"replicas": 1}, "status": {}})
        );
        let mut namespace = json!({"metadata": {"name": "n"}});
        prepare_create(find("", "v1", "namespaces").unwrap(), &mut namespace);
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(namespace["status"]["phase"], "Active");
    }

    #[test]
    fn update_counts_generation() {
        let deployments = find("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"uid": "u", "generation": 2}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        for (spec, annotations, generation) in [
            (json!({"replicas": 1}), Value::Null, 2),
            (json!({"replicas": 2}), Value::Null, 3),
            (json!({"replicas": 1}), json!({"a": "b"}), 3),
        ] {
            let mut new = json!({"metadata": {"generation": 99, "annotations": annotations}, "spec": spec, "status": {"replicas": 5}});
            prepare_update(deployments, &mut new, &old);
            assert_eq!(new["metadata"]["generation"], generation);
            assert_eq!(new["metadata"]["uid"], "u");
            assert_eq!(new["status"], old["status"]);
        }
    }

    #[test]
    fn status_leaves_the_spec() {
        let pods = find("", "v1", "pods").unwrap();
        let old = json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": "n"}, "status": {"qosClass": "Burstable"}});
        let mut new = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "other"}, "status": {"phase": "Running"}});
        prepare_status(pods, &mut new, &old);
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(
            new["status"],
            json!({"phase": "Running", "qosClass": "Burstable"})
        );
    }

    #[test]
    fn equality_ignores_emptiness_of_lists() {
        assert!(same(
            Some(&json!({"a": [], "b": {"c": null}})),
            Some(&json!({"b": {}}))
        ));
        assert!(!same(Some(&json!({"a": {}})), Some(&json!({}))));
        assert!(!same(Some(&json!({"a": 0})), Some(&json!({"a": 1}))));
    }
}
