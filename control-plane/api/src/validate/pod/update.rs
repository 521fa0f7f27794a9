//! What may change of a pod: images, a sooner deadline, more tolerations.

use serde_json::Value;

use super::super::names;
use super::super::rules::{Faults, items, text};
use super::{scheduling, validate_spec_into};
use crate::strategy::same;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the Pod itself.
pub(in crate::validate) fn update(new: &Value, old: &Value, faults: &mut Faults) {
    let (new, old) = (&new["spec"], &old["spec"]);
    for list in ["containers", "initContainers"] {
        let count = |spec: &Value| spec[list].as_array().map_or(0, Vec::len);
        if count(new) != count(old) {
            faults.forbidden(
                format!("spec.{list}"),
                "pod updates may not add or remove containers",
            );
            return;
        }
        for (path, container) in items(new, "spec", list) {
            if text(container, "image").trim().is_empty() {
                faults.required(format!("{path}.image"), "");
            }
        }
    }
    if !deadline(new, old, faults) {
        return;
    }
    tolerations(new, old, faults);
    if same(Some(new), Some(old)) {
        return;
    }
    let mut masked = new.clone();
    take_updatable(&mut masked, old);
    if !same(Some(&masked), Some(old)) {
        let why = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            difference(old, &masked)
        );
        faults.forbidden("spec", &why);
    }
    let mut rest = Faults::default();
    validate_spec_into("spec", new, &mut rest);
    faults.list.extend(rest.list);
}

/// Whether checking goes on after the deadline.
fn deadline(new: &Value, old: &Value, faults: &mut Faults) -> bool {
    let path = "spec.activeDeadlineSeconds";
    let (new, old) = (&new["activeDeadlineSeconds"], &old["activeDeadlineSeconds"]);
    match (new.as_i64(), old.as_i64()) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            faults.invalid(path, new, &names::inclusive_range(0, i32::MAX.into()));
            false
        }
        (Some(n), Some(o)) if n > o => {
            faults.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            faults.invalid(
                path,
                new,
                "must not update from a positive integer to nil value",
            );
            true
        }
        _ => true,
    }
}

/// Tolerations may be added, and their seconds changed.
fn tolerations(new: &Value, old: &Value, faults: &mut Faults) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let kept: Vec<Value> = items(new, "", "tolerations")
        .map(|(_, t)| without_seconds(t))
        .collect();
    let lost = items(old, "", "tolerations").any(|(_, t)| !kept.contains(&without_seconds(t)));
    if lost {
        faults.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
        return;
    }
    if !same(new.get("tolerations"), old.get("tolerations")) {
        scheduling::tolerations("spec", new, faults);
    }
}

/// Puts the old values where changes are allowed.
fn take_updatable(masked: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        for (index, container) in masked[list]
            .as_array_mut()
            .into_iter()
            .flatten()
            .enumerate()
        {
            container["image"] = old[list][index]["image"].clone();
        }
    }
    let mut fields = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let was_negative = old["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|g| g < 0);
    if was_negative && masked["terminationGracePeriodSeconds"].as_i64() == Some(1) {
        fields.push("terminationGracePeriodSeconds");
    }
    let gated = old["schedulingGates"]
        .as_array()
        .is_some_and(|l| !l.is_empty());
    if gated {
        fields.push("nodeSelector");
    }
    for field in fields {
        match (old.get(field), masked.as_object_mut()) {
            (Some(value), Some(map)) => {
                map.insert(field.to_owned(), value.clone());
            }
            (None, Some(map)) => {
                map.remove(field);
            }
            (_, None) => {}
        }
    }
}

/// The changed fields, old and new, one a line.
fn difference(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    differ("spec", old, new, &mut lines);
    lines.join("\n")
}

fn differ(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(o), Value::Object(n)) => {
            let names = o.keys().chain(n.keys().filter(|k| !o.contains_key(*k)));
            for name in names {
                let (old, new) = (&old[name.as_str()], &new[name.as_str()]);
                differ(&format!("{path}.{name}"), old, new, lines);
            }
        }
        (Value::Array(o), Value::Array(n)) if o.len() == n.len() => {
            for (index, (old, new)) in o.iter().zip(n).enumerate() {
                differ(&format!("{path}[{index}]"), old, new, lines);
            }
        }
        _ if same(Some(old), Some(new)) => {}
        _ => {
            lines.push(format!("- {path}: {old}"));
            lines.push(format!("+ {path}: {new}"));
        }
    }
}

/// A write of the status subresource.
pub(in crate::validate) fn update_status(new: &Value, old: &Value, faults: &mut Faults) {
    let (status, before) = (&new["status"], &old["status"]);
    faults.immutable("status.qosClass", &status["qosClass"], &before["qosClass"]);
    for (path, condition) in items(status, "status", "conditions") {
        let kind = text(condition, "type");
        faults.grammar(&format!("{path}.type"), kind, names::qualified_name(kind));
    }
    if status["observedGeneration"].as_i64().is_some_and(|n| n < 0) {
        faults.invalid(
            "status.observedGeneration",
            &status["observedGeneration"],
            "must be a non-negative integer",
        );
    }
    state_transitions(status, before, &old["spec"], faults);
}

/// A container that ended for good does not come back to life.
fn state_transitions(new: &Value, old: &Value, spec: &Value, faults: &mut Faults) {
    for (path, before) in items(old, "status", "containerStatuses") {
        let ended = &before["state"]["terminated"];
        let name = text(before, "name");
        let own = items(spec, "", "containers")
            .find(|(_, c)| text(c, "name") == name)
            .map(|(_, c)| c);
        let ruled = own.is_some_and(|c| !c["restartPolicyRules"].is_null());
        let policy = match own.map(|c| text(c, "restartPolicy")) {
            Some(policy) if !policy.is_empty() => policy,
            _ => text(spec, "restartPolicy"),
        };
        let code = ended["exitCode"].as_i64().unwrap_or_default();
        let restarts = policy == "Always" || (policy == "OnFailure" && code != 0);
        if ended.is_null() || restarts || ruled {
            continue;
        }
        let revived = items(new, "", "containerStatuses").any(|(_, after)| {
            text(after, "name") == name && after["state"]["terminated"].is_null()
        });
        if revived {
            faults.forbidden(
                format!("{path}.state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}
