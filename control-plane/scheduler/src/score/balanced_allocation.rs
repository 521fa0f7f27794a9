//! Prefers nodes whose CPU and memory fill up evenly.

use super::share;
use crate::snapshot::{NodeView, PodView};

pub(super) fn score(pod: &PodView, node: &NodeView) -> i64 {
    let deviation = (share(pod, node, "cpu") - share(pod, node, "memory")).abs() / 2.0;
    (100.0 * (1.0 - deviation)) as i64
}
