//! The states last seen, by container and sandbox id. Pure.

use std::collections::HashMap;

use crate::pod::PodUid;

/// Ids with their pod and state (the CRI number; sandboxes and containers never share ids).
#[derive(Debug, Default)]
pub struct Cache {
    states: HashMap<String, (PodUid, i32)>,
}

impl Cache {
    /// Takes a full listing; returns the pods for which anything differs from before.
    pub fn replace(&mut self, listed: HashMap<String, (PodUid, i32)>) -> Vec<PodUid> {
        let mut changed: Vec<PodUid> = listed
            .iter()
            .filter(|(id, state)| self.states.get(*id) != Some(state))
            .map(|(_, (pod, _))| pod.clone())
            .collect();
        let lost = self
            .states
            .iter()
            .filter(|(id, _)| !listed.contains_key(*id));
        changed.extend(lost.map(|(_, (pod, _))| pod.clone()));
        changed.sort();
        changed.dedup();
        self.states = listed;
        changed
    }

    /// The pod of a container or sandbox seen before.
    #[must_use]
    pub fn pod_of(&self, id: &str) -> Option<&PodUid> {
        self.states.get(id).map(|(pod, _)| pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(entries: &[(&str, &str, i32)]) -> HashMap<String, (PodUid, i32)> {
        entries
            .iter()
            .map(|(id, pod, state)| ((*id).to_owned(), (PodUid::from((*pod).to_owned()), *state)))
            .collect()
    }

    #[test]
    fn only_pods_that_changed_are_named() {
        let mut cache = Cache::default();
        let uids = |changed: Vec<PodUid>| -> Vec<String> {
            changed.iter().map(|u| u.as_str().to_owned()).collect()
        };
        let first = cache.replace(listing(&[
            ("c1", "p1", 1),
            ("c2", "p1", 1),
            ("c3", "p2", 1),
        ]));
        assert_eq!(uids(first), ["p1", "p2"]);
        let same = cache.replace(listing(&[
            ("c1", "p1", 1),
            ("c2", "p1", 1),
            ("c3", "p2", 1),
        ]));
        assert!(same.is_empty());
        let exited = cache.replace(listing(&[
            ("c1", "p1", 2),
            ("c2", "p1", 1),
            ("c3", "p2", 1),
        ]));
        assert_eq!(uids(exited), ["p1"]);
        let removed = cache.replace(listing(&[("c1", "p1", 2), ("c2", "p1", 1)]));
        assert_eq!(uids(removed), ["p2"]);
        assert!(cache.pod_of("c2").is_some() && cache.pod_of("c3").is_none());
    }
}
