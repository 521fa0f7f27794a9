//! Keeps the content of running pods' volumes current: ConfigMaps, Secrets, fields and
//! tokens. Level-triggered, so that pods adopted after a restart are served too.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::{Volumes, desired, populate, reconcile};
use crate::pod::store::PodStore;
use crate::pod::uid;

/// Time between two rounds (the stock kubelet's sync frequency is a minute).
const ROUND: Duration = Duration::from_secs(20);

impl Volumes {
    /// Brings volumes of the store's pods up to date, round after round; never returns.
    pub async fn keep_current(self, store: PodStore) {
        loop {
            tokio::time::sleep(ROUND).await;
            for entry in store.all() {
                let leaving = entry.pod.metadata.deletion_timestamp.is_some();
                let runs = entry.runtime.is_some_and(|r| r.running().next().is_some());
                if runs && !leaving {
                    self.refresh(&entry.pod).await;
                }
            }
        }
    }

    /// Writes anew what has changed of volumes that were made ready before.
    async fn refresh(&self, pod: &Pod) {
        let _one = self.locks.of(uid(pod)).await;
        let dir = self.pod_dir(uid(pod));
        for desired in desired::of(pod) {
            if !desired.is_content() || !populate::is_written(&desired.host_path(&dir)) {
                continue;
            }
            if let Err(error) = reconcile::ensure(self, pod, &desired).await {
                tracing::warn!(
                    pod = uid(pod),
                    volume = desired.volume.name,
                    error = crate::chain::chain(&error),
                    "a volume was not brought up to date"
                );
            }
        }
    }
}
