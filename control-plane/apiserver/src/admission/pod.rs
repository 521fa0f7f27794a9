//! Admission of pods: node restriction, priority, default tolerations.

use berth_api::{
    meta,
    status::{self, Status},
};
use serde_json::{Value, json};

use crate::handler::Call;

/// Seconds a pod stays on a node that is not ready or not reachable (stock
/// `--default-*-toleration-seconds`).
const TOLERATION_SECONDS: i64 = 300;
/// The annotation of a static pod's mirror.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether the pod mirrors a static pod.
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// A node may create only mirrors of its own static pods (stock NodeRestriction).
pub fn restrict_node(call: &Call, pod: &Value) -> Result<(), Status> {
    let Some(node) = call.user.name.strip_prefix("system:node:") else {
        return Ok(());
    };
    let refuse = |why: &str| Err(status::refused(call.resource, meta::name(pod), why));
    if !is_mirror(pod) {
        return refuse(&format!(
            "pod does not have \"{MIRROR}\" annotation, node '{node}' can only create mirror pods"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse(&format!(
            "node '{node}' can only create pods with spec.nodeName set to itself"
        ));
    }
    Ok(())
}

/// Resolves `priorityClassName` (stock admission Priority). Only the two built-in classes
/// exist in this version.
pub fn set_priority(call: &Call, pod: &mut Value) -> Result<(), Status> {
    let class = pod["spec"]["priorityClassName"]
        .as_str()
        .unwrap_or_default();
    let priority = match class {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        class => {
            let why = format!("no PriorityClass with name {class} was found");
            return Err(status::refused(call.resource, meta::name(pod), &why));
        }
    };
    let given = pod["spec"]["priority"].as_i64();
    if given.is_some_and(|given| given != priority) {
        return Err(status::refused(
            call.resource,
            meta::name(pod),
            &format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name",
                given.unwrap_or_default()
            ),
        ));
    }
    pod["spec"]["priority"] = priority.into();
    if pod["spec"].get("preemptionPolicy").is_none() {
        pod["spec"]["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
    Ok(())
}

/// Tolerates the loss of the node for a while, unless the pod says otherwise (stock
/// admission DefaultTolerationSeconds).
pub fn add_default_tolerations(pod: &mut Value) {
    let keys = [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ];
    for key in keys {
        let tolerations = pod["spec"]["tolerations"].as_array();
        let given = tolerations.into_iter().flatten().any(|toleration| {
            let is = |field: &str, value: &str| {
                let own = toleration[field].as_str().unwrap_or_default();
                own.is_empty() || own == value
            };
            is("key", key) && is("effect", "NoExecute")
        });
        if given {
            continue;
        }
        let toleration = json!({
            "key": key, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": TOLERATION_SECONDS,
        });
        match pod["spec"]["tolerations"].as_array_mut() {
            Some(tolerations) => tolerations.push(toleration),
            None => pod["spec"]["tolerations"] = json!([toleration]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_added_once_and_not_over_given_ones() {
        let mut pod = json!({"spec": {}});
        add_default_tolerations(&mut pod);
        add_default_tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add_default_tolerations(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
