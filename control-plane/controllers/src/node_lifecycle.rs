//! Watches the heartbeat of nodes: one whose lease is not renewed becomes Unknown,
//! is tainted. A node short of something, or cordoned, is tainted too, so that the scheduler
//! sends no more pods there. Pods that do not tolerate the taints of their node leave.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::run::{ReconcileError, Step, chain, watch_all};
use crate::taint_eviction::TaintEviction;
use berth_events::Kind;

/// How often the nodes are looked at (kube-controller-manager's node-monitor-period).
const PERIOD: Duration = Duration::from_secs(5);
/// Silence after which a node counts as unreachable (node-monitor-grace-period, 50 s since 1.32).
const GRACE: Duration = Duration::from_secs(50);
const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taints of conditions that are True (stock TaintNodesByCondition).
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// A lease as last seen, by our own clock: the node's clock is not trusted.
struct Seen {
    renewed: Option<Timestamp>,
    at: Instant,
}

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    // A node that becomes ready must not wait for the next period to lose its taint.
    let mut changes = watcher(Api::<Node>::all(client.clone()), watch_all())
        .default_backoff()
        .filter_map(async |event| event.ok())
        .boxed();
    let mut monitor = Monitor {
        eviction: TaintEviction::new(client.clone()),
        client,
        seen: BTreeMap::new(),
    };
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            // Cancel-safe: an event that is not taken stays in the stream.
            event = changes.next() => if event.is_none() { return },
        }
        if let Err(error) = monitor.look().await {
            warn!(
                controller = "node-controller",
                error = chain(&error),
                "run failed; trying again"
            );
        }
    }
}

struct Monitor {
    client: Client,
    seen: BTreeMap<String, Seen>,
    eviction: TaintEviction,
}

impl Monitor {
    async fn look(&mut self) -> Result<(), ReconcileError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let held = leases
            .list(&ListParams::default())
            .await
            .step(|| "list node leases".into())?;
        let renewals: BTreeMap<String, Timestamp> = held
            .items
            .into_iter()
            .filter_map(|lease| Some((lease.name_any(), lease.spec?.renew_time?.0)))
            .collect();
        let all = nodes
            .list(&ListParams::default())
            .await
            .step(|| "list nodes".into())?;
        for node in &all.items {
            let silent = self.is_silent(&node.name_any(), renewals.get(&node.name_any()).copied());
            self.judge(node, silent).await?;
        }
        let is_known = |name: &str| all.items.iter().any(|n| n.name_any() == name);
        self.seen.retain(|name, _| is_known(name));
        self.eviction.retain(is_known);
        Ok(())
    }

    fn is_silent(&mut self, node: &str, renewed: Option<Timestamp>) -> bool {
        let now = Instant::now();
        let seen = self
            .seen
            .entry(node.to_owned())
            .or_insert(Seen { renewed, at: now });
        if seen.renewed != renewed {
            *seen = Seen { renewed, at: now };
        }
        now - seen.at > GRACE
    }

    async fn judge(&mut self, node: &Node, silent: bool) -> Result<(), ReconcileError> {
        let ready = ready_status(node);
        if silent && ready != "Unknown" {
            self.mark_unknown(node).await?;
        }
        let wanted = match (silent, ready) {
            (true, _) | (_, "Unknown") => Some(UNREACHABLE),
            (false, "True") => None,
            (false, _) => Some(NOT_READY),
        };
        let taints = self.ensure_taints(node, wanted).await?;
        self.eviction.evict(&node.name_any(), &taints).await
    }

    async fn mark_unknown(&self, node: &Node) -> Result<(), ReconcileError> {
        let name = node.name_any();
        let now = Time(Timestamp::now());
        let conditions: Vec<serde_json::Value> =
            ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
                .map(|kind| {
                    json!({
                        "type": kind,
                        "status": "Unknown",
                        "reason": "NodeStatusUnknown",
                        "message": "Kubelet stopped posting node status.",
                        "lastTransitionTime": now,
                    })
                })
                .into();
        let patch = json!({ "status": { "conditions": conditions } });
        Api::<Node>::all(self.client.clone())
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
            .step(|| format!("mark node {name} unknown"))?;
        info!(node = name, "node stopped renewing its lease");
        let message = format!("Node {name} status is now: NodeNotReady");
        berth_events::publish(
            &self.client,
            "node-controller",
            node,
            (Kind::Normal, "NodeNotReady"),
            message,
        )
        .await;
        Ok(())
    }

    /// The taints that the node has from now on.
    async fn ensure_taints(
        &self,
        node: &Node,
        wanted: Option<&str>,
    ) -> Result<Vec<Taint>, ReconcileError> {
        let held = node
            .spec
            .as_ref()
            .and_then(|s| s.taints.clone())
            .unwrap_or_default();
        let taints = compute_taints(node, wanted, Timestamp::now());
        if taints == held {
            return Ok(taints);
        }
        let name = node.name_any();
        let patch = json!({
            "metadata": { "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints },
        });
        Api::<Node>::all(self.client.clone())
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .step(|| format!("taint node {name}"))?;
        Ok(taints)
    }
}

/// The taints the node is to have: `health` (not ready, unreachable) with both effects, one
/// for each pressure and a cordon; those of others stay, and so do times of those that stay.
fn compute_taints(node: &Node, health: Option<&str>, now: Timestamp) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for effect in ["NoSchedule", "NoExecute"] {
        wanted.extend(health.map(|key| (key, effect)));
    }
    let short = |kind: &str| condition_status(node, kind) == Some("True");
    let pressed = PRESSURES.iter().filter(|(kind, _)| short(kind));
    wanted.extend(pressed.map(|(_, key)| (*key, "NoSchedule")));
    if spec.and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
            || PRESSURES.iter().any(|(_, own)| *own == key)
    };
    let held = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let stays = |t: &&Taint| !ours(&t.key) || wanted.contains(&(&t.key, &t.effect));
    let mut taints: Vec<Taint> = held.iter().filter(stays).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    taints
}

fn ready_status(node: &Node) -> &str {
    condition_status(node, "Ready").unwrap_or("False")
}

fn condition_status<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions: &[NodeCondition] = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_short_of_something_is_tainted_until_it_is_not() {
        let node = |conditions: serde_json::Value, taints: serde_json::Value| -> Node {
            serde_json::from_value(json!({
                "spec": {"taints": taints}, "status": {"conditions": conditions},
            }))
            .unwrap()
        };
        let is = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let foreign = json!({"key": "dedicated", "value": "x", "effect": "NoSchedule"});
        let shown = |node: &Node, health| -> Vec<String> {
            let taints = compute_taints(node, health, Timestamp::UNIX_EPOCH);
            let text = |t: &Taint| format!("{}:{}", t.key, t.effect);
            taints.iter().map(text).collect()
        };
        let pressed = json!([is("DiskPressure", "True"), is("MemoryPressure", "Unknown")]);
        assert_eq!(
            shown(&node(pressed, json!([foreign])), Some(NOT_READY)),
            [
                "dedicated:NoSchedule",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
                "node.kubernetes.io/disk-pressure:NoSchedule",
            ]
        );
        let old = json!([foreign, {"key": "node.kubernetes.io/disk-pressure",
            "effect": "NoSchedule"}]);
        let relieved = node(json!([is("DiskPressure", "False")]), old);
        assert_eq!(shown(&relieved, None), ["dedicated:NoSchedule"]);
        let mut cordoned = relieved;
        cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
        let last = "node.kubernetes.io/unschedulable:NoSchedule";
        assert_eq!(shown(&cordoned, None), ["dedicated:NoSchedule", last]);
    }
}
