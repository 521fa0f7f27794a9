//! Where a pod may run: selectors, affinity, tolerations, spreading, gates.

use serde_json::Value;

use super::super::field::FieldError;
use super::super::names;
use super::super::rules::{Faults, Unique, items, text};
use super::super::selector::{label_selector, node_requirement};

pub(super) fn check(path: &str, spec: &Value, faults: &mut Faults) {
    faults.labels(&format!("{path}.nodeSelector"), &spec["nodeSelector"]);
    tolerations(path, spec, faults);
    node_affinity(path, spec, faults);
    for kind in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(
            &format!("{path}.affinity.{kind}"),
            &spec["affinity"][kind],
            faults,
        );
    }
    spread(path, spec, faults);
    let mut seen = Unique::default();
    for (path, gate) in items(spec, path, "schedulingGates") {
        let name = text(gate, "name");
        faults.grammar(&path, name, names::qualified_name(name));
        if !seen.insert(name) {
            faults.add(FieldError::duplicate(path, name));
        }
    }
    for (path, gate) in items(spec, path, "readinessGates") {
        let kind = text(gate, "conditionType");
        faults.grammar(
            &format!("{path}.conditionType"),
            kind,
            names::qualified_name(kind),
        );
    }
    if let Some(policy) = spec["preemptionPolicy"].as_str() {
        faults.one_of(
            &format!("{path}.preemptionPolicy"),
            policy,
            &["Never", "PreemptLowerPriority"],
        );
    }
}

/// The tolerations of a spec.
pub(super) fn tolerations(path: &str, spec: &Value, faults: &mut Faults) {
    for (path, one) in items(spec, path, "tolerations") {
        let (key, operator) = (text(one, "key"), text(one, "operator"));
        let (value, effect) = (text(one, "value"), text(one, "effect"));
        let at = format!("{path}.operator");
        if !key.is_empty() {
            faults.grammar(&format!("{path}.key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            faults.invalid(
                at.as_str(),
                &operator.into(),
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if !one["tolerationSeconds"].is_null() && effect != "NoExecute" {
            faults.invalid(
                format!("{path}.effect"),
                &effect.into(),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "Equal" | "" => faults.grammar(&at, value, names::label_value(value)),
            "Exists" if !value.is_empty() => {
                faults.invalid(
                    at,
                    &value.into(),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            _ => faults.add(FieldError::not_supported(
                at,
                operator,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() {
            faults.one_of(
                &format!("{path}.effect"),
                effect,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
    }
}

fn node_affinity(path: &str, spec: &Value, faults: &mut Faults) {
    let path = format!("{path}.affinity.nodeAffinity");
    let affinity = &spec["affinity"]["nodeAffinity"];
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    let at = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution");
    if !required.is_null() {
        if required["nodeSelectorTerms"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            faults.required(
                format!("{at}.nodeSelectorTerms"),
                "must have at least one node selector term",
            );
        }
        for (path, term) in items(required, &at, "nodeSelectorTerms") {
            for (path, one) in items(term, &path, "matchExpressions") {
                node_requirement(&path, one, faults);
            }
        }
    }
    for (path, one) in items(
        affinity,
        &path,
        "preferredDuringSchedulingIgnoredDuringExecution",
    ) {
        weight(&path, one, faults);
        for (path, one) in items(
            &one["preference"],
            &format!("{path}.preference"),
            "matchExpressions",
        ) {
            node_requirement(&path, one, faults);
        }
    }
}

fn weight(path: &str, one: &Value, faults: &mut Faults) {
    if !(1..=100).contains(&one["weight"].as_i64().unwrap_or_default()) {
        faults.invalid(
            format!("{path}.weight"),
            &one["weight"],
            "must be in the range 1-100",
        );
    }
}

fn pod_affinity(path: &str, affinity: &Value, faults: &mut Faults) {
    for (path, term) in items(
        affinity,
        path,
        "requiredDuringSchedulingIgnoredDuringExecution",
    ) {
        affinity_term(&path, term, faults);
    }
    for (path, one) in items(
        affinity,
        path,
        "preferredDuringSchedulingIgnoredDuringExecution",
    ) {
        weight(&path, one, faults);
        affinity_term(
            &format!("{path}.podAffinityTerm"),
            &one["podAffinityTerm"],
            faults,
        );
    }
}

fn affinity_term(path: &str, term: &Value, faults: &mut Faults) {
    label_selector(
        &format!("{path}.labelSelector"),
        &term["labelSelector"],
        faults,
    );
    let key = text(term, "topologyKey");
    if key.is_empty() {
        faults.required(format!("{path}.topologyKey"), "can not be empty");
    } else {
        faults.grammar(
            &format!("{path}.topologyKey"),
            key,
            names::qualified_name(key),
        );
    }
}

fn spread(path: &str, spec: &Value, faults: &mut Faults) {
    for (path, one) in items(spec, path, "topologySpreadConstraints") {
        if one["maxSkew"].as_i64().is_none_or(|n| n <= 0) {
            faults.invalid(
                format!("{path}.maxSkew"),
                &one["maxSkew"],
                "must be greater than zero",
            );
        }
        let key = text(one, "topologyKey");
        if key.is_empty() {
            faults.required(format!("{path}.topologyKey"), "can not be empty");
        } else {
            faults.grammar(
                &format!("{path}.topologyKey"),
                key,
                names::qualified_name(key),
            );
        }
        faults.one_of(
            &format!("{path}.whenUnsatisfiable"),
            text(one, "whenUnsatisfiable"),
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        label_selector(
            &format!("{path}.labelSelector"),
            &one["labelSelector"],
            faults,
        );
    }
}
