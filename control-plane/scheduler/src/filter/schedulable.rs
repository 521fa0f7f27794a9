//! The node is not cordoned, or the pod tolerates that.

use k8s_openapi::api::core::v1::Taint;

use super::{Objection, taints};
use crate::snapshot::{NodeView, PodView};

pub(super) fn check(pod: &PodView, node: &NodeView) -> Objection {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        value: None,
        time_added: None,
    };
    let refused = node.unschedulable && !taints::is_tolerated(&cordon, &pod.tolerations);
    refused.then(|| vec!["node(s) were unschedulable".into()])
}
