//! What the HTTPS endpoints may know: pods, their containers and logs, and the CRI client
//! for streams. Read only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cri::Cri;
use crate::pod::PodUid;
use crate::pod::runtime::ContainerRecord;
use crate::pod::store::{Entry, PodStore};

/// A cheap, read-only handle for the server.
#[derive(Clone, Debug)]
pub struct PodView {
    store: PodStore,
    cri: Cri,
    pod_logs_dir: PathBuf,
}

impl PodView {
    /// A view of `store`.
    #[must_use]
    pub fn new(store: PodStore, cri: Cri, pod_logs_dir: PathBuf) -> PodView {
        PodView {
            store,
            cri,
            pod_logs_dir,
        }
    }

    /// The CRI client, for exec, attach, port-forward and stats.
    #[must_use]
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// Directory of all pods' logs.
    #[must_use]
    pub fn pod_logs_dir(&self) -> &Path {
        &self.pod_logs_dir
    }

    /// Every pod, with the status last generated in place.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        self.store.all().iter().map(with_status).collect()
    }

    /// Everything known of every pod.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.store.all()
    }

    /// One pod by UID.
    #[must_use]
    pub fn get(&self, uid: &PodUid) -> Option<Entry> {
        self.store.get(uid)
    }

    /// One pod by name.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str) -> Option<Entry> {
        self.store.find(namespace, name)
    }

    /// The newest container called `container` of a pod; with `previous` the one before.
    #[must_use]
    pub fn container(
        &self,
        entry: &Entry,
        container: &str,
        previous: bool,
    ) -> Option<ContainerRecord> {
        entry
            .runtime
            .as_ref()?
            .containers
            .iter()
            .filter(|c| c.name == container)
            .nth(usize::from(previous))
            .cloned()
    }

    /// Id of the pod's ready sandbox, for port-forward.
    #[must_use]
    pub fn sandbox_id(&self, entry: &Entry) -> Option<String> {
        Some(entry.runtime.as_ref()?.ready_sandbox()?.id.clone())
    }
}

fn with_status(entry: &Entry) -> Pod {
    let mut pod = Pod::clone(&entry.pod);
    if let Some(status) = &entry.status {
        pod.status = Some(Arc::unwrap_or_clone(status.clone()));
    }
    pod
}
