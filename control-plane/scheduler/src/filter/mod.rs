//! Predicates: each says why a node cannot take a pod, in the stock scheduler's words.

mod host_ports;
mod node_affinity;
mod resources;
mod schedulable;
mod taints;

pub(crate) use node_affinity::matches;
pub(crate) use taints::is_tolerated;

use crate::snapshot::{NodeView, PodView};

/// `None` when the node can take the pod.
type Objection = Option<Vec<String>>;

/// The objections of the first predicate that has any, cheapest first.
pub(crate) fn first_objection(pod: &PodView, node: &NodeView) -> Objection {
    [
        schedulable::check,
        taints::check,
        node_affinity::check,
        host_ports::check,
        resources::check,
    ]
    .iter()
    .find_map(|check| check(pod, node))
}
