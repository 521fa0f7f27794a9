//! Merges the sources into one stream of updates; pure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Origin, PodUpdate, SourceEvent};
use crate::pod::{PodUid, is_mirror};

/// What each source last said.
#[derive(Debug, Default)]
pub struct Merge {
    pods: HashMap<(Origin, PodUid), Arc<Pod>>,
    synced: Vec<Origin>,
}

impl Merge {
    /// Takes one event of a source; returns what changed by it.
    pub fn apply(&mut self, event: SourceEvent) -> Vec<PodUpdate> {
        match event {
            SourceEvent::Set { origin, pod } => self.set(origin, *pod).into_iter().collect(),
            SourceEvent::Gone { origin, pod } => match PodUid::of(&pod) {
                Some(uid) => self.gone(origin, &uid).into_iter().collect(),
                None => Vec::new(),
            },
            SourceEvent::Snapshot { origin, pods } => self.snapshot(origin, pods),
        }
    }

    /// Every source in `needed` has said everything once.
    #[must_use]
    pub fn is_synced(&self, needed: &[Origin]) -> bool {
        needed.iter().all(|origin| self.synced.contains(origin))
    }

    /// Whether a source still wants the pod.
    #[must_use]
    pub fn wants(&self, uid: &PodUid) -> bool {
        [Origin::Api, Origin::File]
            .iter()
            .any(|origin| self.pods.contains_key(&(*origin, uid.clone())))
    }

    fn snapshot(&mut self, origin: Origin, pods: Vec<Pod>) -> Vec<PodUpdate> {
        let kept: Vec<_> = pods.iter().filter_map(PodUid::of).collect();
        let stale: Vec<_> = self
            .pods
            .keys()
            .filter(|(from, uid)| *from == origin && !kept.contains(uid))
            .map(|(_, uid)| uid.clone())
            .collect();
        let mut updates: Vec<_> = stale
            .iter()
            .filter_map(|uid| self.gone(origin, uid))
            .collect();
        updates.extend(pods.into_iter().filter_map(|pod| self.set(origin, pod)));
        if !self.synced.contains(&origin) {
            self.synced.push(origin);
            updates.push(PodUpdate::Synced(origin));
        }
        updates
    }

    fn set(&mut self, origin: Origin, pod: Pod) -> Option<PodUpdate> {
        let uid = PodUid::of(&pod)?;
        pod.spec.as_ref()?;
        let pod = Arc::new(pod);
        let before = self.pods.insert((origin, uid), pod.clone());
        if before.is_some_and(|before| before == pod) {
            return None;
        }
        Some(if is_mirror(&pod) {
            PodUpdate::Mirror(pod)
        } else {
            PodUpdate::Set(pod)
        })
    }

    fn gone(&mut self, origin: Origin, uid: &PodUid) -> Option<PodUpdate> {
        let pod = self.pods.remove(&(origin, uid.clone()))?;
        Some(if is_mirror(&pod) {
            PodUpdate::MirrorGone(pod)
        } else {
            PodUpdate::Gone(pod)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::MIRROR_ANNOTATION;
    use crate::testing::pod_of;

    fn pod(uid: &str) -> Pod {
        let mut pod = pod_of(&["a"], "Always");
        pod.metadata.uid = Some(uid.into());
        pod
    }

    fn names(updates: &[PodUpdate]) -> Vec<String> {
        let of = |kind: &str, pod: &Pod| format!("{kind} {}", crate::pod::uid(pod));
        updates
            .iter()
            .map(|update| match update {
                PodUpdate::Set(pod) => of("set", pod),
                PodUpdate::Gone(pod) => of("gone", pod),
                PodUpdate::Mirror(pod) => of("mirror", pod),
                PodUpdate::MirrorGone(pod) => of("mirror-gone", pod),
                PodUpdate::Synced(origin) => format!("synced {origin:?}"),
            })
            .collect()
    }

    #[test]
    fn snapshots_tell_what_came_and_went() {
        let mut merge = Merge::default();
        let snapshot = |uids: &[&str]| SourceEvent::Snapshot {
            origin: Origin::File,
            pods: uids.iter().map(|u| pod(u)).collect(),
        };
        let first = merge.apply(snapshot(&["a", "b"]));
        assert_eq!(names(&first), ["set a", "set b", "synced File"]);
        assert!(merge.apply(snapshot(&["a", "b"])).is_empty());
        assert_eq!(
            names(&merge.apply(snapshot(&["b", "c"]))),
            ["gone a", "set c"]
        );
        assert!(merge.is_synced(&[Origin::File]) && !merge.is_synced(&[Origin::Api]));
    }

    #[test]
    fn sources_do_not_touch_each_other_and_mirrors_are_told_apart() {
        let mut merge = Merge::default();
        let mut mirror = pod("m");
        mirror.metadata.annotations = Some([(MIRROR_ANNOTATION.to_owned(), "h".to_owned())].into());
        let set = |pod: Pod| SourceEvent::Set {
            origin: Origin::Api,
            pod: Box::new(pod),
        };
        assert_eq!(names(&merge.apply(set(pod("a")))), ["set a"]);
        assert_eq!(names(&merge.apply(set(mirror))), ["mirror m"]);
        let empty = SourceEvent::Snapshot {
            origin: Origin::File,
            pods: Vec::new(),
        };
        assert_eq!(names(&merge.apply(empty)), ["synced File"]);
        let gone = SourceEvent::Gone {
            origin: Origin::Api,
            pod: Box::new(pod("m")),
        };
        assert_eq!(names(&merge.apply(gone)), ["mirror-gone m"]);
    }
}
