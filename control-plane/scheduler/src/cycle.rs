//! One pod, one decision. Pure.

use std::collections::BTreeMap;

use crate::snapshot::{NodeView, PodView, Snapshot};
use crate::{filter, score};

/// What is to become of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It goes to this node.
    Bind(String),
    /// No node takes it; the message is the condition's and the event's.
    Unschedulable(String),
}

/// Filters the nodes, scores what is left, takes the best; equal nodes are told
/// apart by name, so that a decision can be repeated.
pub(crate) fn decide(pod: &PodView, snapshot: &Snapshot) -> Decision {
    if !pod.unsupported.is_empty() {
        return Decision::Unschedulable(format!(
            "UnsupportedField: {}",
            pod.unsupported.join(", ")
        ));
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i64, &NodeView)> = None;
    for node in &snapshot.nodes {
        match filter::first_objection(pod, node) {
            Some(objections) => {
                for reason in objections {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
            None => {
                let score = score::total(pod, node);
                if best.is_none_or(|(held, _)| score > held) {
                    best = Some((score, node));
                }
            }
        }
    }
    match best {
        Some((_, node)) => Decision::Bind(node.name.clone()),
        None => Decision::Unschedulable(message(snapshot.nodes.len(), &reasons)),
    }
}

fn message(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut list: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    list.sort();
    format!("0/{nodes} nodes are available: {}.", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Amounts;
    use k8s_openapi::api::core::v1::{Taint, Toleration};

    fn amounts(list: &[(&str, i128)]) -> Amounts {
        list.iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect()
    }

    fn node(name: &str, cpu: i128) -> NodeView {
        NodeView {
            name: name.into(),
            allocatable: amounts(&[("cpu", cpu), ("memory", 1 << 30), ("pods", 110)]),
            labels: [("disk".to_owned(), name.to_owned())].into(),
            ..NodeView::default()
        }
    }

    fn pod(cpu: i128) -> PodView {
        PodView {
            requests: amounts(&[("cpu", cpu), ("pods", 1)]),
            ..PodView::default()
        }
    }

    fn cluster(nodes: Vec<NodeView>) -> Snapshot {
        Snapshot { nodes }
    }

    #[test]
    fn the_emptier_node_wins() {
        let mut full = node("a", 1000);
        full.used = amounts(&[("cpu", 600)]);
        let decision = decide(&pod(100), &cluster(vec![full, node("b", 1000)]));
        assert_eq!(decision, Decision::Bind("b".into()));
    }

    #[test]
    fn messages_count_nodes_by_reason() {
        let mut tainted = node("c", 1000);
        tainted.taints = vec![Taint {
            key: "k".into(),
            value: Some("v".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        }];
        let decision = decide(
            &pod(2000),
            &cluster(vec![node("a", 100), node("b", 100), tainted.clone()]),
        );
        assert_eq!(
            decision,
            Decision::Unschedulable(
                "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu.".into()
            )
        );
        let mut tolerant = pod(10);
        tolerant.tolerations = vec![Toleration {
            key: Some("k".into()),
            operator: Some("Exists".into()),
            ..Toleration::default()
        }];
        assert_eq!(
            decide(&tolerant, &cluster(vec![tainted])),
            Decision::Bind("c".into())
        );
    }

    #[test]
    fn a_selector_and_cordon_are_obeyed() {
        let mut picky = pod(1);
        picky.node_selector = [("disk".to_owned(), "b".to_owned())].into();
        let mut cordoned = node("b", 100);
        assert_eq!(
            decide(&picky, &cluster(vec![node("a", 100), cordoned.clone()])),
            Decision::Bind("b".into())
        );
        cordoned.unschedulable = true;
        assert_eq!(
            decide(&picky, &cluster(vec![cordoned])),
            Decision::Unschedulable(
                "0/1 nodes are available: 1 node(s) were unschedulable.".into()
            )
        );
    }

    #[test]
    fn host_ports_collide_also_with_all_addresses() {
        let port = |ip: &str| (ip.to_owned(), "TCP".to_owned(), 80);
        let mut taken = node("a", 100);
        taken.host_ports = [port("10.0.0.1")].into();
        let mut asks = pod(1);
        asks.host_ports = [port("")].into();
        assert_eq!(
            decide(&asks, &cluster(vec![taken.clone()])),
            Decision::Unschedulable(
                "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.".into()
            )
        );
        asks.host_ports = [port("10.0.0.2")].into();
        assert_eq!(
            decide(&asks, &cluster(vec![taken])),
            Decision::Bind("a".into())
        );
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        let mut asks = pod(1);
        asks.unsupported = vec!["spec.resourceClaims"];
        assert_eq!(
            decide(&asks, &cluster(vec![node("a", 100)])),
            Decision::Unschedulable("UnsupportedField: spec.resourceClaims".into())
        );
    }
}
