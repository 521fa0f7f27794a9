//! Namespaces.

use serde_json::Value;

use super::names;
use super::rules::{Faults, items};

pub(super) fn check(new: &Value, faults: &mut Faults) {
    for (path, finalizer) in items(&new["spec"], "spec", "finalizers") {
        let finalizer = finalizer.as_str().unwrap_or_default();
        faults.grammar(&path, finalizer, names::qualified_name(finalizer));
        if !finalizer.contains('/') && finalizer != "kubernetes" {
            faults.invalid(
                path,
                &finalizer.into(),
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}
