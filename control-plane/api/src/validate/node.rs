//! Nodes.

use serde_json::Value;

use super::field::FieldError;
use super::names;
use super::rules::{Faults, items, text};
use crate::strategy::same;

pub(super) fn check(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    taints(new, faults);
    let Some(old) = old else { return };
    for field in ["podCIDRs", "providerID"] {
        let (new, old) = (new["spec"].get(field), old["spec"].get(field));
        let was_set = old.is_some_and(|v| v.as_str() != Some("") && !v.is_null());
        if was_set && !same(new, old) {
            let name = if field == "podCIDRs" {
                "podCIDR"
            } else {
                field
            };
            faults.forbidden(
                format!("spec.{field}"),
                &format!("node updates may not change {name} except from \"\" to valid"),
            );
        }
    }
}

fn taints(node: &Value, faults: &mut Faults) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (path, taint) in items(&node["spec"], "spec", "taints") {
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        faults.grammar(&format!("{path}.key"), key, names::qualified_name(key));
        let value = text(taint, "value");
        faults.grammar(&format!("{path}.value"), value, names::label_value(value));
        faults.required_one_of(
            &format!("{path}.effect"),
            effect,
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
        if seen.contains(&(key, effect)) {
            let mut error = FieldError::duplicate(path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            faults.add(error);
        }
        seen.push((key, effect));
    }
}
