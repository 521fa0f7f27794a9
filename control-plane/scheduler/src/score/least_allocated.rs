//! Prefers nodes with more room left.

use super::share;
use crate::snapshot::{NodeView, PodView};

pub(super) fn score(pod: &PodView, node: &NodeView) -> i64 {
    let free = |resource| 100.0 * (1.0 - share(pod, node, resource));
    ((free("cpu") + free("memory")) / 2.0) as i64
}
