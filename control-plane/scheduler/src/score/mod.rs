//! Preferences among the nodes that can take a pod: each gives 0 to 100.

mod balanced_allocation;
mod least_allocated;
mod node_affinity;
mod taints;

use crate::snapshot::{NodeView, PodView};

/// The sum of all scores by the stock scheduler's weights.
pub(crate) fn total(pod: &PodView, node: &NodeView) -> i64 {
    least_allocated::score(pod, node)
        + balanced_allocation::score(pod, node)
        + 2 * node_affinity::score(pod, node)
        + 3 * taints::score(pod, node)
}

/// The share of a resource that is used once the pod is there, 0 to 1.
fn share(pod: &PodView, node: &NodeView, resource: &str) -> f64 {
    let of =
        |amounts: &crate::requests::Amounts| amounts.get(resource).copied().unwrap_or_default();
    let allocatable = of(&node.allocatable);
    if allocatable == 0 {
        return 1.0;
    }
    let used = of(&node.used) + of(&pod.requests);
    (used as f64 / allocatable as f64).min(1.0)
}
