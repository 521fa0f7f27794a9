//! What the status of a new pod says: its quality-of-service class, and that gates hold it.

use serde_json::{Value, json};

use crate::quantity::Quantity;

/// `Guaranteed` when every container's CPU and memory are limited and requested
/// alike, `BestEffort` when nothing is asked for, else `Burstable`.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    if let Some(resources) = spec.get("resources").filter(|r| r.is_object())
        && asks(resources)
    {
        return if is_guaranteed(resources) {
            "Guaranteed"
        } else {
            "Burstable"
        };
    }
    let containers = || {
        ["initContainers", "containers"]
            .into_iter()
            .filter_map(|list| spec[list].as_array())
            .flatten()
            .map(|container| &container["resources"])
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(is_guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// A new pod with scheduling gates says so in its condition PodScheduled, as the stock server
/// has it; the scheduler writes over it once the gates are gone.
pub(super) fn say_gated(pod: &mut Value) {
    let gates = pod["spec"]["schedulingGates"].as_array();
    if gates.is_some_and(|gates| !gates.is_empty()) {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
}

fn amount(resources: &Value, list: &str, name: &str) -> Option<Quantity> {
    let value = resources.get(list)?.get(name)?;
    Quantity::from_value(value).ok().filter(|q| !q.is_zero())
}

fn asks(resources: &Value) -> bool {
    ["requests", "limits"].into_iter().any(|list| {
        ["cpu", "memory"]
            .into_iter()
            .any(|name| amount(resources, list, name).is_some())
    })
}

fn is_guaranteed(resources: &Value) -> bool {
    ["cpu", "memory"].into_iter().all(|name| {
        let limit = amount(resources, "limits", name);
        let request = amount(resources, "requests", name).or(limit);
        limit.is_some() && limit == request
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        for (resources, class) in [
            (vec![json!({})], "BestEffort"),
            (
                vec![json!({"requests": {"ephemeral-storage": "1Gi"}})],
                "BestEffort",
            ),
            (vec![json!({"requests": {"cpu": "0"}})], "BestEffort"),
            (vec![json!({"requests": {"cpu": "1"}})], "Burstable"),
            (vec![full.clone()], "Guaranteed"),
            (vec![full.clone(), json!({})], "Burstable"),
            (
                vec![json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}})],
                "Guaranteed",
            ),
            (
                vec![json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})],
                "Burstable",
            ),
        ] {
            let containers: Vec<Value> = resources
                .iter()
                .map(|r| json!({ "resources": r }))
                .collect();
            assert_eq!(
                qos_class(&json!({"spec": {"containers": containers}})),
                class,
                "{resources:?}"
            );
        }
    }
}
