//! Deletes pods that do not tolerate a NoExecute taint of their node: at once, or after the
//! time for which they tolerate it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};

use crate::pod_state::condition;
use crate::run::{ReconcileError, Step, gone_is_done};
use berth_events::Kind;

const COMPONENT: &str = "taint-eviction-controller";

/// A NoExecute taint, and since when it stands.
struct Standing {
    taint: Taint,
    since: Timestamp,
}

/// Node, key and value of a taint that does not say when it was added.
type Undated = (String, String, Option<String>);

/// Remembers since when the taints stand that do not say so themselves.
pub(crate) struct TaintEviction {
    client: Client,
    first_seen: BTreeMap<Undated, Timestamp>,
}

impl TaintEviction {
    pub fn new(client: Client) -> TaintEviction {
        TaintEviction {
            client,
            first_seen: BTreeMap::new(),
        }
    }

    /// Deletes the pods of `node` whose time is over, given all the taints it now has. Whose
    /// time is not over yet goes in a later call.
    pub async fn evict(&mut self, node: &str, taints: &[Taint]) -> Result<(), ReconcileError> {
        let standing = note(&mut self.first_seen, node, taints, Timestamp::now());
        if standing.is_empty() {
            return Ok(());
        }
        let pods: Api<Pod> = Api::all(self.client.clone());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let held = pods
            .list(&on_node)
            .await
            .step(|| format!("list pods of node {node}"))?;
        for pod in &held.items {
            let is_over = leaves_at(pod, &standing).is_some_and(|at| Timestamp::now() >= at);
            if is_over && pod.metadata.deletion_timestamp.is_none() {
                self.delete(pod).await?;
            }
        }
        Ok(())
    }

    /// Forgets the taints of nodes that are not among these.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.first_seen.retain(|(node, ..), _| is_known(node));
    }

    async fn delete(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let own: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        gone_is_done(own.delete(&name, &DeleteParams::default()).await)
            .step(|| format!("evict pod {namespace}/{name}"))?;
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        let what = (Kind::Normal, "TaintManagerEviction");
        berth_events::publish(&self.client, COMPONENT, pod, what, message).await;
        Ok(())
    }
}

/// The NoExecute taints of the node with their times; `first_seen` is brought up to date.
fn note(
    first_seen: &mut BTreeMap<Undated, Timestamp>,
    node: &str,
    taints: &[Taint],
    now: Timestamp,
) -> Vec<Standing> {
    let is_undated = |t: &&Taint| t.effect == "NoExecute" && t.time_added.is_none();
    let key = |t: &Taint| (node.to_owned(), t.key.clone(), t.value.clone());
    let undated: Vec<Undated> = taints.iter().filter(is_undated).map(key).collect();
    first_seen.retain(|held, _| held.0 != node || undated.contains(held));
    let executing = taints.iter().filter(|t| t.effect == "NoExecute");
    executing
        .map(|taint| Standing {
            since: match &taint.time_added {
                Some(at) => at.0,
                None => *first_seen.entry(key(taint)).or_insert(now),
            },
            taint: taint.clone(),
        })
        .collect()
}

/// When the pod must go; `None` when it tolerates every taint for ever, or is bound to the
/// node for good (a mirror pod). The time for which it tolerates a taint runs from when both
/// the taint and the pod were on the node. Pure.
fn leaves_at(pod: &Pod, standing: &[Standing]) -> Option<Timestamp> {
    if pod
        .annotations()
        .contains_key("kubernetes.io/config.mirror")
    {
        return None;
    }
    let tolerations = pod.spec.as_ref()?.tolerations.as_deref();
    let tolerations = tolerations.unwrap_or_default();
    let bound = condition(pod, "PodScheduled")
        .filter(|c| c.status == "True")
        .and_then(|c| c.last_transition_time.as_ref())
        .or(pod.metadata.creation_timestamp.as_ref())
        .map_or(Timestamp::UNIX_EPOCH, |at| at.0);
    let leaves = |one: &Standing| {
        // The first that matches counts, as stock's GetMatchingTolerations has it.
        let Some(held) = tolerations.iter().find(|t| tolerates(t, &one.taint)) else {
            return Some(one.since);
        };
        let time = SignedDuration::from_secs(held.toleration_seconds?.max(0));
        one.since.max(bound).checked_add(time).ok()
    };
    standing.iter().filter_map(leaves).min()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_any_or = |asked: &Option<String>, held: &str| {
        let asked = asked.as_deref().unwrap_or_default();
        asked.is_empty() || asked == held
    };
    let same_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    };
    same_value
        && is_any_or(&toleration.key, &taint.key)
        && is_any_or(&toleration.effect, &taint.effect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn taint(key: &str, value: &str, added: Option<i64>) -> Taint {
        Taint {
            key: key.into(),
            value: Some(value.into()).filter(|v: &String| !v.is_empty()),
            effect: "NoExecute".into(),
            time_added: added.map(|second| Time(at(second))),
        }
    }

    /// When a pod with these tolerations, bound at second 500, leaves a node with `taints`.
    fn leaves(tolerations: Value, taints: &[Taint]) -> Option<i64> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": at(500).to_string()},
            "spec": {"containers": [], "tolerations": tolerations},
        }))
        .unwrap();
        let standing = note(&mut BTreeMap::new(), "n", taints, at(2000));
        leaves_at(&pod, &standing).map(|t| t.as_second())
    }

    #[test]
    fn pods_leave_after_what_they_tolerate() {
        let lost = [taint(UNREACHABLE, "", Some(1000))];
        assert_eq!(leaves(json!([]), &lost), Some(1000));
        let timed = json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300}]);
        assert_eq!(leaves(timed, &lost), Some(1300));
        assert_eq!(leaves(json!([{"operator": "Exists"}]), &lost), None);
        let other = json!([{"key": "other", "operator": "Exists"}]);
        assert_eq!(leaves(other, &lost), Some(1000));
    }

    #[test]
    fn a_taint_of_ones_own_counts_by_key_value_and_effect() {
        let own = [taint("repair", "disk", None)];
        let equal = |value: &str| json!([{"key": "repair", "value": value}]);
        assert_eq!(leaves(json!([]), &own), Some(2000));
        assert_eq!(leaves(equal("disk"), &own), None);
        assert_eq!(leaves(equal("fan"), &own), Some(2000));
        let effect = json!([{"key": "repair", "operator": "Exists", "effect": "NoSchedule"}]);
        assert_eq!(leaves(effect, &own), Some(2000));
        let mut harmless = own;
        harmless[0].effect = "NoSchedule".into();
        assert_eq!(leaves(json!([]), &harmless), None);
    }

    #[test]
    fn of_many_taints_the_first_to_be_fatal_counts() {
        let two = [taint("a", "", Some(1000)), taint("b", "", Some(1100))];
        let timed = |key: &str, seconds: i64| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds});
        let both = json!([timed("a", 300), timed("b", 60)]);
        assert_eq!(leaves(both, &two), Some(1160));
        assert_eq!(leaves(json!([timed("a", 300)]), &two), Some(1100));
    }

    #[test]
    fn a_pod_that_came_after_the_taint_has_its_whole_time() {
        let old = [taint("a", "", Some(100))];
        let timed = json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 60}]);
        assert_eq!(leaves(timed, &old), Some(560));
    }

    #[test]
    fn a_taint_without_a_time_counts_from_when_it_was_first_seen() {
        let mut seen = BTreeMap::new();
        let own = [taint("a", "", None)];
        let since = |seen: &mut _, taints: &[Taint], now| {
            let standing = note(seen, "n", taints, at(now));
            standing.first().map(|one| one.since.as_second())
        };
        assert_eq!(since(&mut seen, &own, 10), Some(10));
        assert_eq!(since(&mut seen, &own, 20), Some(10));
        assert_eq!(since(&mut seen, &[], 30), None);
        assert_eq!(since(&mut seen, &own, 40), Some(40));
    }
}
