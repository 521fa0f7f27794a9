//! Requests and limits.

use serde_json::Value;

use super::super::names;
use super::super::rules::{Faults, entries};
use crate::quantity::Quantity;

pub(super) fn check(path: &str, resources: &Value, faults: &mut Faults) {
    let (limits, requests) = (&resources["limits"], &resources["requests"]);
    for (list, amounts) in [("limits", limits), ("requests", requests)] {
        for (name, amount) in entries(amounts) {
            let path = format!("{path}.{list}[{name}]");
            check_name(&path, name, faults);
            check_amount(&path, name, amount, faults);
        }
    }
    for (name, request) in entries(requests) {
        let Ok(wanted) = Quantity::from_value(request) else {
            continue;
        };
        let path = format!("{path}.requests");
        match limits.get(name).map(Quantity::from_value) {
            Some(Ok(limit)) if !overcommits(name) && wanted != limit => {
                faults.invalid(
                    path,
                    request,
                    &format!("must be equal to {name} limit of {limit}"),
                );
            }
            Some(Ok(limit)) if wanted > limit => {
                faults.invalid(
                    path,
                    request,
                    &format!("must be less than or equal to {name} limit of {limit}"),
                );
            }
            None if !overcommits(name) => {
                let limits = path.replace(".requests", ".limits");
                faults.required(limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
}

/// Whether more may be promised than there is: not for extended resources.
fn overcommits(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn check_name(path: &str, name: &str, faults: &mut Faults) {
    let standard =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if standard {
        return;
    }
    faults.grammar(path, name, names::qualified_name(name));
    if !name.contains('/') {
        faults.invalid(
            path,
            &name.into(),
            "must be a standard resource type or fully qualified",
        );
        faults.invalid(
            path,
            &name.into(),
            "must be a standard resource for containers",
        );
    } else if is_native(name) || name.starts_with("requests.") {
        faults.invalid(
            path,
            &name.into(),
            "doesn't follow extended resource name standard",
        );
    }
}

fn check_amount(path: &str, name: &str, amount: &Value, faults: &mut Faults) {
    let Ok(quantity) = Quantity::from_value(amount) else {
        return;
    };
    if quantity.is_negative() {
        faults.invalid(path, amount, "must be greater than or equal to 0");
    }
    if !is_native(name) && !quantity.is_integer() {
        faults.invalid(path, amount, "must be an integer");
    }
}
