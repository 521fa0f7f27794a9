//! `CreateContainer`: "creates a new container in the specified sandbox". A retry joins
//! the call it repeats.

use std::sync::Arc;

use berth_proto::cri;
use tonic::Status;

use crate::container::create;
use crate::container::model::ContainerRecord;
use crate::server::Server;
use crate::status;

/// Creates the container.
pub async fn create_container(
    server: &Arc<Server>,
    request: cri::CreateContainerRequest,
) -> Result<cri::CreateContainerResponse, Status> {
    let sandbox = server
        .sandboxes
        .find(&request.pod_sandbox_id)
        .map_err(status::from)?;
    let config = request
        .config
        .ok_or_else(|| status::invalid("config", "is required"))?;
    let name = ContainerRecord::name(&sandbox.id, &config);
    let task_server = server.clone();
    let operation = move || async move {
        create::create(task_server, sandbox, config)
            .await
            .map_err(Arc::new)
    };
    let made = server.running.create_container.join(name, operation).await;
    let id = made.ok_or_else(status::lost)?.map_err(status::shared)?;
    Ok(cri::CreateContainerResponse {
        container_id: id.to_string(),
    })
}
