//! Deletes pods that are bound to a node that does not exist: no kubelet is there to end them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::pod_state::phase;
use crate::run::{ReconcileError, Step, chain, gone_is_done};

/// How often pods are looked at (stock gcCheckPeriod).
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be missing before its pods go (stock quarantineTime).
const QUARANTINE: Duration = Duration::from_secs(40);

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let mut missing = Missing::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = look(&client, &mut missing).await {
            let error = chain(&error);
            warn!(
                controller = "pod-garbage-collector",
                error, "run failed; trying again"
            );
        }
    }
}

async fn look(client: &Client, missing: &mut Missing) -> Result<(), ReconcileError> {
    let all = ListParams::default();
    // Pods first: a node that comes with its pods between the two lists is then seen.
    let pods = Api::<Pod>::all(client.clone()).list(&all).await;
    let pods = pods.step(|| "list pods".into())?.items;
    let nodes = Api::<Node>::all(client.clone()).list(&all).await;
    let nodes = nodes.step(|| "list nodes".into())?;
    let known = nodes.items.iter().map(ResourceExt::name_any).collect();
    let asked = pods.iter().filter_map(node_of).collect();
    let gone = missing.note(&asked, &known, Instant::now());
    let is_orphan = |pod: &&Pod| node_of(pod).is_some_and(|node| gone.contains(node));
    for pod in pods.iter().filter(is_orphan) {
        collect(client, pod).await?;
    }
    Ok(())
}

fn node_of(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    Some(node).filter(|node| !node.is_empty())
}

/// Nodes that pods are bound to and that do not exist, with when each was first missed.
#[derive(Default)]
struct Missing(BTreeMap<String, Instant>);

impl Missing {
    /// The nodes among `asked` that are not `known`, and were not for the whole quarantine.
    fn note<'a>(
        &mut self,
        asked: &BTreeSet<&'a str>,
        known: &BTreeSet<String>,
        now: Instant,
    ) -> BTreeSet<&'a str> {
        let is_missing = |node: &str| asked.contains(node) && !known.contains(node);
        self.0.retain(|node, _| is_missing(node));
        for node in asked.iter().filter(|node| is_missing(node)) {
            self.0.entry((*node).to_owned()).or_insert(now);
        }
        let is_over = |node: &&&str| self.0.get(**node).is_some_and(|at| now - *at >= QUARANTINE);
        asked.iter().filter(is_over).copied().collect()
    }
}

/// Marks the pod as failed, so that nobody counts on it, and deletes it without grace.
async fn collect(client: &Client, pod: &Pod) -> Result<(), ReconcileError> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    if !matches!(phase(pod), "Succeeded" | "Failed") {
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "phase": "Failed", "conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
                "lastTransitionTime": Time(Timestamp::now()),
            }]},
        }));
        let done = pods
            .patch_status(&name, &PatchParams::default(), &patch)
            .await;
        if gone_is_done(done)
            .step(|| format!("fail orphaned pod {namespace}/{name}"))?
            .is_none()
        {
            return Ok(());
        }
    }
    let at_once = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default().grace_period(0)
    };
    gone_is_done(pods.delete(&name, &at_once).await)
        .step(|| format!("delete orphaned pod {namespace}/{name}"))?;
    info!(%namespace, pod = name, node = node_of(pod), "pod of a missing node deleted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_node_go_once_it_was_missing_for_the_quarantine() {
        let mut missing = Missing::default();
        let start = Instant::now();
        let asked = BTreeSet::from(["here", "gone"]);
        let known = BTreeSet::from(["here".to_owned()]);
        let late = start + QUARANTINE;
        assert!(missing.note(&asked, &known, start).is_empty());
        assert!(missing.note(&asked, &known, late - PERIOD).is_empty());
        assert_eq!(missing.note(&asked, &known, late), ["gone"].into());
    }

    #[test]
    fn a_node_that_came_back_is_missed_anew() {
        let mut missing = Missing::default();
        let start = Instant::now();
        let asked = BTreeSet::from(["n"]);
        let back = BTreeSet::from(["n".to_owned()]);
        let late = start + QUARANTINE;
        assert!(missing.note(&asked, &BTreeSet::new(), start).is_empty());
        assert!(missing.note(&asked, &back, start + PERIOD).is_empty());
        assert!(missing.note(&asked, &BTreeSet::new(), late).is_empty());
    }

    #[test]
    fn a_pod_without_a_node_asks_for_none() {
        let pod = |spec| serde_json::from_value::<Pod>(json!({ "spec": spec })).unwrap();
        assert_eq!(node_of(&pod(json!({"containers": []}))), None);
        assert_eq!(
            node_of(&pod(json!({"containers": [], "nodeName": ""}))),
            None
        );
        let bound = pod(json!({"containers": [], "nodeName": "n"}));
        assert_eq!(node_of(&bound), Some("n"));
    }
}
