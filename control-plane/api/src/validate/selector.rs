//! `LabelSelector` objects and node selector terms.

use serde_json::Value;

use super::names;
use super::rules::{Faults, entries, items, text};

/// A `metav1.LabelSelector`.
pub(super) fn label_selector(path: &str, selector: &Value, faults: &mut Faults) {
    faults.labels(&format!("{path}.matchLabels"), &selector["matchLabels"]);
    for (path, expression) in items(selector, path, "matchExpressions") {
        let values = expression["values"].as_array().map_or(0, Vec::len);
        match text(expression, "operator") {
            "In" | "NotIn" if values == 0 => faults.required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if values > 0 => faults.forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => faults.invalid(
                format!("{path}.operator"),
                &expression["operator"],
                "not a valid selector operator",
            ),
        }
        let key = text(expression, "key");
        faults.grammar(&format!("{path}.key"), key, names::qualified_name(key));
        for (path, value) in items(expression, &path, "values") {
            let value = value.as_str().unwrap_or_default();
            faults.grammar(&path, value, names::label_value(value));
        }
    }
}

/// Whether a selector asks for nothing at all.
pub(super) fn is_empty(selector: &Value) -> bool {
    entries(&selector["matchLabels"]).next().is_none()
        && selector["matchExpressions"]
            .as_array()
            .is_none_or(Vec::is_empty)
}

/// A requirement of a node selector term.
pub(super) fn node_requirement(path: &str, one: &Value, faults: &mut Faults) {
    let values = one["values"].as_array().map_or(0, Vec::len);
    match text(one, "operator") {
        "In" | "NotIn" if values == 0 => faults.required(
            format!("{path}.values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "Exists" | "DoesNotExist" if values > 0 => faults.forbidden(
            format!("{path}.values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Gt" | "Lt" if values != 1 => faults.required(
            format!("{path}.values"),
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => faults.invalid(
            format!("{path}.operator"),
            &one["operator"],
            "not a valid selector operator",
        ),
    }
    let key = text(one, "key");
    faults.grammar(&format!("{path}.key"), key, names::qualified_name(key));
}
