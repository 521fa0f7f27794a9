//! The requests fit into what is allocatable and not yet used.

use super::Objection;
use crate::snapshot::{NodeView, PodView};

pub(super) fn check(pod: &PodView, node: &NodeView) -> Objection {
    let short: Vec<String> = pod
        .requests
        .iter()
        .filter(|(name, asked)| {
            let allocatable = node.allocatable.get(*name).copied().unwrap_or_default();
            let used = node.used.get(*name).copied().unwrap_or_default();
            **asked > 0 && used + **asked > allocatable
        })
        .map(|(name, _)| match name.as_str() {
            "pods" => "Too many pods".into(),
            name => format!("Insufficient {name}"),
        })
        .collect();
    (!short.is_empty()).then_some(short)
}
