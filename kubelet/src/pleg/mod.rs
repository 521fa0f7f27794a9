//! PLEG: what happens to containers, turned into events about pods.
//!
//! The runtime's event stream is followed where there is one; without it, and after a gap
//! in it, the runtime is listed and compared with what was known.

mod cache;
mod evented;
mod relist;

use std::time::Duration;

use tokio::sync::mpsc;

use crate::cri::{Cri, CriError, EventStream};
use crate::pod::PodUid;
use cache::Cache;

/// Something happened to a container or sandbox of this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLifecycleEvent {
    /// The pod.
    pub pod: PodUid,
}

/// Relist period while there is no event stream.
const RELIST: Duration = Duration::from_secs(1);
/// Relist period beside a working event stream: it repairs what the stream should lose.
const RELIST_BESIDE: Duration = Duration::from_secs(60);

/// Reports what happens for as long as somebody listens.
pub async fn run(cri: Cri, events: mpsc::UnboundedSender<PodLifecycleEvent>) {
    let mut cache = Cache::default();
    let mut after = None;
    while !events.is_closed() {
        let connected = connect(&cri, after, &mut cache, &events).await;
        match connected {
            Ok(stream) => {
                let last = evented::follow(stream, &cri, &mut cache, &events).await;
                after = last.or(after);
            }
            Err(error) => {
                tracing::debug!(%error, "no event stream");
                tokio::time::sleep(RELIST).await;
            }
        }
    }
}

/// Asks for the stream, listing until it stands: some servers answer only with the first
/// event, and others have no stream at all.
async fn connect(
    cri: &Cri,
    after: Option<u64>,
    cache: &mut Cache,
    events: &mpsc::UnboundedSender<PodLifecycleEvent>,
) -> Result<EventStream, CriError> {
    let stream = cri.container_events(after);
    tokio::pin!(stream);
    loop {
        if let Err(error) = relist::once(cri, cache, events).await {
            tracing::debug!(%error, "cannot list containers");
        }
        tokio::select! {
            connected = &mut stream => return connected,
            () = tokio::time::sleep(RELIST) => {}
        }
    }
}
