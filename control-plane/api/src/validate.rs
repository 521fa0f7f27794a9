//! Validation of objects with the texts of the stock server: every fault at
//! once, each with its path. Objects are decoded, normalised, defaulted and
//! prepared before.

mod config;
mod discovery;
mod event;
pub mod field;
mod lease;
mod meta;
pub mod names;
mod namespace;
mod node;
mod pod;
mod rules;
mod selector;
mod service;
mod workload;

use serde_json::Value;

pub use field::{ErrorKind, FieldError, aggregate};
pub use pod::{binding, validate_spec as pod_spec};

use crate::gvk::Resource;
use rules::Faults;

/// The faults of an object that is about to be created.
pub fn create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut faults = Faults::default();
    meta::create(resource, object, &mut faults);
    content(resource, object, None, &mut faults);
    faults.list
}

/// The faults of an update: those of the object and of what changed.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut faults = Faults::default();
    meta::update(new, old, &mut faults);
    match (resource.group, resource.plural) {
        ("", "pods") => pod::update(new, old, &mut faults),
        _ => content(resource, new, Some(old), &mut faults),
    }
    faults.list
}

/// The faults of a write to the `status` subresource.
pub fn update_status(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut faults = Faults::default();
    meta::update(new, old, &mut faults);
    match (resource.group, resource.plural) {
        ("", "pods") => pod::update_status(new, old, &mut faults),
        ("apps", _) => workload::status(new, &mut faults),
        _ => {}
    }
    faults.list
}

fn content(resource: &Resource, new: &Value, old: Option<&Value>, faults: &mut Faults) {
    match (resource.group, resource.plural) {
        ("", "pods") => pod::create(new, faults),
        ("", "services") => service::check(new, old, faults),
        ("", "configmaps") => config::config_map(new, old, faults),
        ("", "secrets") => config::secret(new, old, faults),
        ("", "nodes") => node::check(new, old, faults),
        ("", "namespaces") => namespace::check(new, faults),
        ("" | "events.k8s.io", "events") => event::check(resource, new, old, faults),
        ("apps", "deployments") => workload::deployment(new, old, faults),
        ("apps", "replicasets") => workload::replica_set(new, old, faults),
        ("coordination.k8s.io", "leases") => lease::check(new, faults),
        ("discovery.k8s.io", "endpointslices") => discovery::check(new, old, faults),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
