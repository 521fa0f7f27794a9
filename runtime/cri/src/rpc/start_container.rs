//! `StartContainer`: "starts the container". A retry joins the call it repeats.

use std::sync::Arc;

use berth_proto::cri;
use tonic::Status;

use crate::container::start;
use crate::server::Server;
use crate::status;

/// Starts the container.
pub async fn start_container(
    server: &Arc<Server>,
    who: &str,
    request: cri::StartContainerRequest,
) -> Result<cri::StartContainerResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    let (task_server, id, who) = (server.clone(), record.id.clone(), who.to_owned());
    let operation = move || async move {
        let started = start::start(task_server, id, who).await;
        started.map_err(Arc::new)
    };
    let started = server
        .running
        .start_container
        .join(record.id.clone(), operation)
        .await;
    started.ok_or_else(status::lost)?.map_err(status::shared)?;
    Ok(cri::StartContainerResponse {})
}
