//! Which pods go first when there are too many. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::pod_state::{condition, is_ready, phase};

/// A pod's wish about when it goes (KEP-2255); lower goes earlier.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete: first those without a node, not running, not ready,
/// cheap by their own word, doubled up on a node, ready for the shortest time,
/// often restarted, young.
pub(super) fn victims<'a>(pods: &[&'a Pod], count: usize) -> Vec<&'a Pod> {
    let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods {
        *by_node.entry(node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<&Pod> = pods.to_vec();
    ranked.sort_by_key(|pod| {
        (
            !node(pod).is_empty(),
            match phase(pod) {
                "Pending" => 0,
                "Running" => 2,
                _ => 1,
            },
            is_ready(pod),
            cost(pod),
            Reverse(by_node[node(pod)]),
            Reverse(ready_since(pod)),
            Reverse(restarts(pod)),
            Reverse(pod.creation_timestamp().map(|t| t.0)),
        )
    });
    ranked.truncate(count);
    ranked
}

fn node(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|s| s.node_name.as_deref())
        .unwrap_or_default()
}

fn cost(pod: &Pod) -> i32 {
    pod.annotations()
        .get(DELETION_COST)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready")?
        .last_transition_time
        .as_ref()
        .map(|t| t.0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_deref());
    statuses
        .unwrap_or_default()
        .iter()
        .map(|s| s.restart_count)
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready: bool, age: i64) -> Pod {
        let made = Timestamp::from_second(10_000 - age).unwrap().to_string();
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": made},
            "spec": {"containers": [], "nodeName": node},
            "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": made}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_least_useful_go_first() {
        let pods = [
            pod("old", "a", "Running", true, 100),
            pod("young", "b", "Running", true, 10),
            pod("unready", "b", "Running", false, 100),
            pod("pending", "b", "Pending", false, 100),
            pod("unplaced", "", "Pending", false, 100),
        ];
        let refs: Vec<&Pod> = pods.iter().collect();
        let names: Vec<String> = victims(&refs, 4).iter().map(|p| p.name_any()).collect();
        assert_eq!(names, ["unplaced", "pending", "unready", "young"]);
    }
}
