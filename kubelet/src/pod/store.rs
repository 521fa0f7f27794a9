//! The pods this node should run, with the status last made for each.
//!
//! Written by the sync loop and the workers, read by everyone; readers get clones of
//! `Arc`s, so no lock is held while they work.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::runtime::PodRuntime;
use super::{PodUid, name, namespace};

/// A cheap handle on the pods of this node.
#[derive(Clone, Debug, Default)]
pub struct PodStore {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: HashMap<PodUid, Entry>,
    /// Mirror pods by `namespace/name`.
    mirrors: HashMap<String, Arc<Pod>>,
}

/// One pod: what is wanted and what is known of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The pod as its source gave it.
    pub pod: Arc<Pod>,
    /// The status last generated here; `None` before the first sync.
    pub status: Option<Arc<PodStatus>>,
    /// Sandboxes and containers as last observed; `None` before the first sync.
    pub runtime: Option<Arc<PodRuntime>>,
}

impl PodStore {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the newest form of a pod; what is known of it stays.
    pub fn set(&self, uid: PodUid, pod: Arc<Pod>) {
        let mut inner = self.write();
        match inner.pods.get_mut(&uid) {
            Some(entry) => entry.pod = pod,
            None => {
                let entry = Entry {
                    pod,
                    status: None,
                    runtime: None,
                };
                inner.pods.insert(uid, entry);
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &PodUid) {
        self.write().pods.remove(uid);
    }

    /// Keeps the status a worker generated.
    pub fn set_status(&self, uid: &PodUid, status: Arc<PodStatus>) {
        if let Some(entry) = self.write().pods.get_mut(uid) {
            entry.status = Some(status);
        }
    }

    /// Keeps what a worker observed at the runtime.
    pub fn set_runtime(&self, uid: &PodUid, runtime: Arc<PodRuntime>) {
        if let Some(entry) = self.write().pods.get_mut(uid) {
            entry.runtime = Some(runtime);
        }
    }

    /// One pod.
    #[must_use]
    pub fn get(&self, uid: &PodUid) -> Option<Entry> {
        self.read().pods.get(uid).cloned()
    }

    /// The pod called `namespace/name`; of several incarnations the one not being deleted.
    #[must_use]
    pub fn find(&self, ns: &str, pod_name: &str) -> Option<Entry> {
        let inner = self.read();
        let mut found: Vec<&Entry> = inner
            .pods
            .values()
            .filter(|e| namespace(&e.pod) == ns && name(&e.pod) == pod_name)
            .collect();
        found.sort_by_key(|e| e.pod.metadata.deletion_timestamp.is_some());
        found.first().map(|e| (*e).clone())
    }

    /// All pods.
    #[must_use]
    pub fn all(&self) -> Vec<Entry> {
        self.read().pods.values().cloned().collect()
    }

    /// Keeps the mirror pod that the API server has for a static pod.
    pub fn set_mirror(&self, pod: Arc<Pod>) {
        let key = super::key(&pod);
        self.write().mirrors.insert(key, pod);
    }

    /// Forgets a mirror pod.
    pub fn remove_mirror(&self, key: &str) {
        self.write().mirrors.remove(key);
    }

    /// The mirror pod called `namespace/name`.
    #[must_use]
    pub fn mirror(&self, key: &str) -> Option<Arc<Pod>> {
        self.read().mirrors.get(key).cloned()
    }

    /// All mirror pods.
    #[must_use]
    pub fn mirrors(&self) -> Vec<Arc<Pod>> {
        self.read().mirrors.values().cloned().collect()
    }
}
