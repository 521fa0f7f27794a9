//! Every NoSchedule and NoExecute taint of the node is tolerated.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::Objection;
use crate::snapshot::{NodeView, PodView};

pub(super) fn check(pod: &PodView, node: &NodeView) -> Objection {
    let taint = node
        .taints
        .iter()
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .find(|taint| !is_tolerated(taint, &pod.tolerations))?;
    let value = taint.value.as_deref().unwrap_or_default();
    Some(vec![format!(
        "node(s) had untolerated taint {{{}: {value}}}",
        taint.key
    )])
}

pub(crate) fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or_default();
        let key = t.key.as_deref().unwrap_or_default();
        let same_value = match t.operator.as_deref() {
            Some("Exists") => true,
            _ => {
                t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
        };
        (effect.is_empty() || effect == taint.effect)
            && (key.is_empty() || key == taint.key)
            && same_value
    })
}
