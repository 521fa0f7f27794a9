//! Avoids nodes with PreferNoSchedule taints that the pod does not tolerate.

use crate::filter::is_tolerated;
use crate::snapshot::{NodeView, PodView};

pub(super) fn score(pod: &PodView, node: &NodeView) -> i64 {
    let soft = |taint: &&k8s_openapi::api::core::v1::Taint| taint.effect == "PreferNoSchedule";
    let untolerated = node
        .taints
        .iter()
        .filter(soft)
        .filter(|taint| !is_tolerated(taint, &pod.tolerations))
        .count();
    100 / (1 + i64::try_from(untolerated).unwrap_or(i64::MAX - 1))
}
