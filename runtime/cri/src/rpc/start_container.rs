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
    request: cri::StartContainerRequest,
) -> Result<cri::StartContainerResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    let (task_server, id) = (server.clone(), record.id.clone());
    let operation = move || async move { start::start(task_server, id).await.map_err(Arc::new) };
    let started = server
        .running
        .start_container
        .join(record.id.clone(), operation)
        .await;
    started.ok_or_else(status::lost)?.map_err(status::shared)?;
    Ok(cri::StartContainerResponse {})
}
