//! `GetContainerEvents`: what happens to containers and sandboxes, without end.

use std::pin::Pin;
use std::sync::Arc;

use berth_proto::cri;
use futures::{Stream, StreamExt};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::events::RESUME_HEADER;
use crate::server::Server;
use crate::status;

/// A stream of events.
pub type Events = Pin<Box<dyn Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send>>;

/// Gives the events to come, or those after the number in the request header.
pub fn get_container_events(
    server: &Arc<Server>,
    metadata: &MetadataMap,
) -> Result<Events, Status> {
    let after = match metadata.get(RESUME_HEADER) {
        Some(value) => {
            let number = value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse().ok());
            Some(number.ok_or_else(|| status::invalid(RESUME_HEADER, "is not a number"))?)
        }
        None => None,
    };
    let reader = server.events.reader(after).map_err(status::from)?;
    let ending = server.ending.clone();
    let stream = futures::stream::unfold(Some((server.clone(), reader)), |state| async move {
        let (server, mut reader) = state?;
        match reader.next(&server.events).await {
            Ok(event) => Some((Ok(event), Some((server, reader)))),
            Err(error) => Some((Err(status::from(error)), None)),
        }
    });
    Ok(Box::pin(stream.take_until(ending.cancelled_owned())))
}
