//! Follows the runtime's event stream.

use berth_proto::cri::ContainerEventResponse;
use tokio::sync::mpsc;

use super::cache::Cache;
use super::{PodLifecycleEvent, RELIST_BESIDE, relist};
use crate::cri::{Cri, EventStream};
use crate::pod::PodUid;
use crate::pod::runtime::LABEL_POD_UID;

/// Reports events until the stream ends; returns the sequence number to resume behind,
/// where the server gives one.
pub async fn follow(
    mut stream: EventStream,
    cri: &Cri,
    cache: &mut Cache,
    events: &mpsc::UnboundedSender<PodLifecycleEvent>,
) -> Option<u64> {
    let mut last = None;
    let mut beside = tokio::time::interval(RELIST_BESIDE);
    loop {
        tokio::select! {
            // Cancel-safe: a message is taken whole or not at all.
            event = stream.message() => match event {
                Ok(Some(event)) => {
                    last = (event.berth_sequence > 0).then_some(event.berth_sequence).or(last);
                    let Some(pod) = pod_of(&event, cache) else { continue };
                    if events.send(PodLifecycleEvent { pod }).is_err() {
                        return last;
                    }
                }
                Ok(None) => return last,
                Err(status) => {
                    tracing::debug!(%status, "the event stream broke");
                    return last;
                }
            },
            _ = beside.tick() => {
                if let Err(error) = relist::once(cri, cache, events).await {
                    tracing::debug!(%error, "cannot list containers");
                    return last;
                }
            }
            () = events.closed() => return last,
        }
    }
}

/// The pod an event is about.
fn pod_of(event: &ContainerEventResponse, cache: &Cache) -> Option<PodUid> {
    let sandbox = event.pod_sandbox_status.as_ref();
    let uid = sandbox
        .and_then(|s| s.metadata.as_ref())
        .map(|m| m.uid.clone())
        .or_else(|| {
            let container = event.containers_statuses.iter();
            let mut labelled = container.filter_map(|c| c.labels.get(LABEL_POD_UID));
            labelled.next().cloned()
        });
    match uid {
        Some(uid) if !uid.is_empty() => Some(PodUid::from(uid)),
        _ => cache.pod_of(&event.container_id).cloned(),
    }
}
