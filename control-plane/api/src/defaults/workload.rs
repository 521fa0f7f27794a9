//! Defaults of Deployments and ReplicaSets.

use serde_json::Value;

use super::{object_or_new, pod, set_default};

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = object_or_new(object, "spec") else {
        return;
    };
    template(spec);
    if let Some(strategy) = object_or_new(spec, "strategy") {
        if let Some(map) = strategy.as_object_mut() {
            set_default(map, "type", "RollingUpdate");
        }
        if strategy["type"] == "RollingUpdate"
            && let Some(Value::Object(rolling)) = object_or_new(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
    }
}

pub(super) fn replica_set(object: &mut Value) {
    let Some(spec) = object_or_new(object, "spec") else {
        return;
    };
    template(spec);
    if let Some(spec) = spec.as_object_mut() {
        set_default(spec, "replicas", 1);
    }
}

fn template(spec: &mut Value) {
    if let Some(template) = object_or_new(spec, "template")
        && let Some(spec) = object_or_new(template, "spec")
    {
        pod::apply_spec(spec);
    }
}
