//! Prefers nodes that match the pod's preferred terms, by their weights.

use crate::filter::matches;
use crate::snapshot::{NodeView, PodView};

pub(super) fn score(pod: &PodView, node: &NodeView) -> i64 {
    let preferred = pod
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default();
    let total: i64 = preferred.iter().map(|term| i64::from(term.weight)).sum();
    let met: i64 = preferred
        .iter()
        .filter(|term| matches(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum();
    if total > 0 { 100 * met / total } else { 0 }
}
