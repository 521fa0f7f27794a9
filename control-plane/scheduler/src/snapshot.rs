//! An immutable view of the cluster for one decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, Node, Pod, PodSpec, Taint, Toleration};

use crate::requests::{self, Amounts};

/// A host port: address (empty for all), protocol, number.
pub(crate) type HostPort = (String, String, i32);

/// What a decision needs of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodView {
    pub uid: String,
    /// `namespace/name`.
    pub name: String,
    pub node: Option<String>,
    pub priority: i32,
    /// Asks for this scheduler and is not being deleted.
    pub is_ours: bool,
    pub is_finished: bool,
    pub requests: Amounts,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub affinity: Option<Affinity>,
    pub host_ports: BTreeSet<HostPort>,
    /// Paths of fields that this scheduler does not honour.
    pub unsupported: Vec<&'static str>,
}

/// What a decision needs of a node, with the pods on it added up.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub used: Amounts,
    pub host_ports: BTreeSet<HostPort>,
}

/// The cluster at one instant.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub nodes: Vec<NodeView>,
}

impl PodView {
    pub fn of(pod: &Pod) -> PodView {
        let Some(spec) = &pod.spec else {
            return PodView::default();
        };
        let meta = &pod.metadata;
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        PodView {
            uid: meta.uid.clone().unwrap_or_default(),
            name: format!(
                "{}/{}",
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default()
            ),
            node: spec.node_name.clone().filter(|n| !n.is_empty()),
            priority: spec.priority.unwrap_or_default(),
            is_ours: spec.scheduler_name.as_deref().unwrap_or(crate::NAME) == crate::NAME
                && meta.deletion_timestamp.is_none()
                && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty),
            is_finished: matches!(phase, Some("Succeeded" | "Failed")),
            requests: requests::of_pod(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            affinity: spec.affinity.clone(),
            host_ports: host_ports(spec),
            unsupported: unsupported(spec),
        }
    }
}

fn host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    spec.containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            let ip = port
                .host_ip
                .clone()
                .filter(|ip| ip != "0.0.0.0")
                .unwrap_or_default();
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((ip, protocol, number))
        })
        .collect()
}

/// Required placement rules that are not implemented: such a pod is refused, never
/// placed as if it had not asked.
fn unsupported(spec: &PodSpec) -> Vec<&'static str> {
    let mut paths = Vec::new();
    let affinity = spec.affinity.clone().unwrap_or_default();
    if affinity.pod_affinity.is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution
            .is_some()
    }) {
        paths.push("spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    }
    if affinity.pod_anti_affinity.is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution
            .is_some()
    }) {
        paths.push("spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    }
    let strict = |c: &k8s_openapi::api::core::v1::TopologySpreadConstraint| {
        c.when_unsatisfiable == "DoNotSchedule"
    };
    if spec
        .topology_spread_constraints
        .iter()
        .flatten()
        .any(strict)
    {
        paths.push("spec.topologySpreadConstraints");
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        paths.push("spec.resourceClaims");
    }
    if spec.scheduling_group.is_some() {
        paths.push("spec.schedulingGroup");
    }
    paths
}

impl Snapshot {
    /// `assumed` are bindings of ours that the watch has not brought back yet.
    pub fn take(
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        assumed: &BTreeMap<String, (Arc<Pod>, String)>,
    ) -> Snapshot {
        let mut by_name: BTreeMap<String, NodeView> = nodes
            .iter()
            .map(|node| NodeView::of(node))
            .map(|view| (view.name.clone(), view))
            .collect();
        let seen = pods.iter().map(|pod| (pod, None));
        let bound: BTreeSet<&str> = pods
            .iter()
            .filter(|pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()))
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        let ours = assumed
            .iter()
            .filter(|(uid, _)| !bound.contains(uid.as_str()))
            .map(|(_, (pod, node))| (pod, Some(node)));
        for (pod, node) in seen.chain(ours) {
            let view = PodView::of(pod);
            let target = node.or(view.node.as_ref());
            if view.is_finished {
                continue;
            }
            if let Some(held) = target.and_then(|name| by_name.get_mut(name)) {
                requests::add(&mut held.used, &view.requests);
                held.host_ports.extend(view.host_ports);
            }
        }
        Snapshot {
            nodes: by_name.into_values().collect(),
        }
    }
}

impl NodeView {
    fn of(node: &Node) -> NodeView {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        NodeView {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or_default(),
            allocatable: requests::parse(&status.allocatable.unwrap_or_default()),
            used: Amounts::new(),
            host_ports: BTreeSet::new(),
        }
    }
}
