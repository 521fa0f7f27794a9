//! Lists everything at the runtime and reports the pods that differ from before.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::PodLifecycleEvent;
use super::cache::Cache;
use crate::cri::{Cri, CriError};
use crate::pod::PodUid;
use crate::pod::runtime::LABEL_POD_UID;

/// One listing.
pub async fn once(
    cri: &Cri,
    cache: &mut Cache,
    events: &mpsc::UnboundedSender<PodLifecycleEvent>,
) -> Result<(), CriError> {
    let mut listed = HashMap::new();
    for sandbox in cri.list_pod_sandboxes(HashMap::new()).await? {
        let uid = sandbox.metadata.map(|m| m.uid).unwrap_or_default();
        listed.insert(sandbox.id, (PodUid::from(uid), sandbox.state));
    }
    for mut container in cri.list_containers(HashMap::new()).await? {
        let Some(uid) = container.labels.remove(LABEL_POD_UID) else {
            continue;
        };
        // Containers and sandboxes count their states alike; 100 keeps them apart.
        listed.insert(container.id, (PodUid::from(uid), 100 + container.state));
    }
    for pod in cache.replace(listed) {
        // Nobody listens only while the kubelet goes down.
        let _ = events.send(PodLifecycleEvent { pod });
    }
    Ok(())
}
