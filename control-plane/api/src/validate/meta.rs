//! `ObjectMeta` on create and update.

use serde_json::Value;

use super::field::FieldError;
use super::names;
use super::rules::{Faults, entries, items, text};
use crate::gvk::Resource;

/// All annotations together, keys included.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

fn name_faults(resource: &Resource, name: &str) -> Vec<String> {
    match (resource.group, resource.plural) {
        ("", "namespaces") => names::dns1123_label(name),
        ("", "services") => names::dns1123_label(name),
        _ => names::dns1123_subdomain(name),
    }
}

pub(super) fn create(resource: &Resource, object: &Value, faults: &mut Faults) {
    let metadata = &object["metadata"];
    let base = text(metadata, "generateName");
    if !base.is_empty() {
        // A trailing hyphen is fine, for a suffix follows.
        let masked = format!("{}a", base.strip_suffix('-').unwrap_or(base));
        faults.grammar(
            "metadata.generateName",
            base,
            name_faults(resource, &masked),
        );
    }
    let name = text(metadata, "name");
    if name.is_empty() {
        faults.required("metadata.name", "name or generateName is required");
    } else {
        faults.grammar("metadata.name", name, name_faults(resource, name));
    }
    let namespace = text(metadata, "namespace");
    if resource.namespaced && namespace.is_empty() {
        faults.required("metadata.namespace", "");
    } else if resource.namespaced {
        faults.grammar(
            "metadata.namespace",
            namespace,
            names::dns1123_label(namespace),
        );
    } else if !namespace.is_empty() {
        faults.forbidden("metadata.namespace", "not allowed on this type");
    }
    common(metadata, faults);
    for (path, finalizer) in items(metadata, "metadata", "finalizers") {
        let finalizer = finalizer.as_str().unwrap_or_default();
        let whole = path.split('[').next().unwrap_or(&path);
        faults.grammar(whole, finalizer, names::qualified_name(finalizer));
    }
}

pub(super) fn update(new: &Value, old: &Value, faults: &mut Faults) {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    if !old["deletionTimestamp"].is_null() {
        let before = old["finalizers"].as_array().cloned().unwrap_or_default();
        let added: Vec<String> = new["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|f| !before.contains(f))
            .map(Value::to_string)
            .collect();
        if !added.is_empty() {
            faults.forbidden(
                "metadata.finalizers",
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            );
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        faults.immutable(&format!("metadata.{field}"), &new[field], &old[field]);
    }
    common(new, faults);
}

/// What holds on create and update alike.
fn common(metadata: &Value, faults: &mut Faults) {
    faults.labels("metadata.labels", &metadata["labels"]);
    let mut size = 0;
    for (key, value) in entries(&metadata["annotations"]) {
        size += key.len() + value.as_str().map_or(0, str::len);
        let lower = key.to_lowercase();
        faults.grammar("metadata.annotations", key, names::qualified_name(&lower));
    }
    if size > ANNOTATIONS_LIMIT {
        faults.add(FieldError::too_long(
            "metadata.annotations",
            ANNOTATIONS_LIMIT,
        ));
    }
    owners(metadata, faults);
}

fn owners(metadata: &Value, faults: &mut Faults) {
    let mut controller: Option<String> = None;
    let path = "metadata.ownerReferences";
    for (_, owner) in items(metadata, "metadata", "ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                faults.required(format!("{path}.{field}"), "must not be empty");
            }
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            if let Some(first) = &controller {
                faults.invalid(
                    path,
                    &metadata["ownerReferences"],
                    &format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                );
            }
            controller.get_or_insert(this);
        }
    }
}
