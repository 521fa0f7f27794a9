//! Deployments and ReplicaSets.

use serde_json::Value;

use super::field::FieldError;
use super::names;
use super::pod;
use super::rules::{Faults, text};
use super::selector::{is_empty, label_selector};
use crate::selector::LabelSelector;

pub(super) fn deployment(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let spec = &new["spec"];
    faults.non_negative("spec.replicas", &spec["replicas"]);
    let selector = selector(spec, faults);
    template(spec, selector.as_ref(), faults);
    strategy(&spec["strategy"], faults);
    faults.non_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
    faults.non_negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]);
    let deadline = &spec["progressDeadlineSeconds"];
    faults.non_negative("spec.progressDeadlineSeconds", deadline);
    let ready = spec["minReadySeconds"].as_i64().unwrap_or_default();
    if deadline.as_i64().is_some_and(|d| d <= ready) {
        faults.invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    if let Some(old) = old {
        faults.immutable("spec.selector", &spec["selector"], &old["spec"]["selector"]);
    }
}

pub(super) fn replica_set(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let spec = &new["spec"];
    faults.non_negative("spec.replicas", &spec["replicas"]);
    faults.non_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
    let selector = selector(spec, faults);
    template(spec, selector.as_ref(), faults);
    if let Some(old) = old {
        faults.immutable("spec.selector", &spec["selector"], &old["spec"]["selector"]);
    }
}

fn selector(spec: &Value, faults: &mut Faults) -> Option<LabelSelector> {
    let value = &spec["selector"];
    if value.is_null() {
        faults.required("spec.selector", "");
        return None;
    }
    label_selector("spec.selector", value, faults);
    if is_empty(value) {
        faults.invalid(
            "spec.selector",
            value,
            "empty selector is invalid for deployment",
        );
        return None;
    }
    match LabelSelector::from_value(value) {
        Ok(selector) => Some(selector),
        Err(_) => {
            faults.invalid("spec.selector", value, "invalid label selector");
            None
        }
    }
}

fn template(spec: &Value, selector: Option<&LabelSelector>, faults: &mut Faults) {
    let template = &spec["template"];
    let labels = &template["metadata"]["labels"];
    if selector.is_some_and(|s| !s.matches(labels)) {
        faults.invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        );
    }
    faults.labels("spec.template.metadata.labels", labels);
    let path = "spec.template.spec";
    pod::validate_spec_into(path, &template["spec"], faults);
    let policy = text(&template["spec"], "restartPolicy");
    if matches!(policy, "OnFailure" | "Never") {
        faults.add(FieldError::not_supported(
            format!("{path}.restartPolicy"),
            policy,
            &["Always"],
        ));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        faults.forbidden(
            format!("{path}.activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn strategy(strategy: &Value, faults: &mut Faults) {
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => faults.forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        "Recreate" => {}
        "RollingUpdate" => {
            let path = "spec.strategy.rollingUpdate";
            for field in ["maxUnavailable", "maxSurge"] {
                amount(&format!("{path}.{field}"), &rolling[field], faults);
            }
            if is_zero(&rolling["maxUnavailable"]) && is_zero(&rolling["maxSurge"]) {
                faults.invalid(
                    format!("{path}.maxUnavailable"),
                    &rolling["maxUnavailable"],
                    "may not be 0 when `maxSurge` is 0",
                );
            }
            let percent = rolling["maxUnavailable"]
                .as_str()
                .and_then(|p| p.strip_suffix('%'));
            if percent
                .and_then(|p| p.parse::<u64>().ok())
                .is_some_and(|p| p > 100)
            {
                faults.invalid(
                    format!("{path}.maxUnavailable"),
                    &rolling["maxUnavailable"],
                    "must not be greater than 100%",
                );
            }
        }
        _ => faults.add(FieldError::not_supported(
            "spec.strategy",
            strategy.clone(),
            &["Recreate", "RollingUpdate"],
        )),
    }
}

fn amount(path: &str, value: &Value, faults: &mut Faults) {
    match value {
        Value::String(text) => faults.grammar(path, text, names::percent(text)),
        number => faults.non_negative(path, number),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.strip_suffix('%').and_then(|p| p.parse().ok()) == Some(0),
        value => value.as_i64() == Some(0),
    }
}

/// Counts of the status subresource.
pub(super) fn status(new: &Value, faults: &mut Faults) {
    let status = &new["status"];
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ] {
        faults.non_negative(&format!("status.{field}"), &status[field]);
    }
    let count = |field: &str| status[field].as_i64().unwrap_or_default();
    for field in [
        "updatedReplicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
    ] {
        if count(field) > count("replicas") {
            faults.invalid(
                format!("status.{field}"),
                &status[field],
                "cannot be greater than status.replicas",
            );
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        faults.invalid(
            "status.availableReplicas",
            &status["availableReplicas"],
            "cannot be greater than readyReplicas",
        );
    }
}
