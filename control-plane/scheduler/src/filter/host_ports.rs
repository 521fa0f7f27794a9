//! No host port that the pod asks for is taken.

use super::Objection;
use crate::snapshot::{HostPort, NodeView, PodView};

pub(super) fn check(pod: &PodView, node: &NodeView) -> Objection {
    let taken = pod
        .host_ports
        .iter()
        .any(|asked| node.host_ports.iter().any(|held| collide(asked, held)));
    taken.then(|| vec!["node(s) didn't have free ports for the requested pod ports".into()])
}

fn collide(a: &HostPort, b: &HostPort) -> bool {
    (a.1 == b.1 && a.2 == b.2) && (a.0.is_empty() || b.0.is_empty() || a.0 == b.0)
}
