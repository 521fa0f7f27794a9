//! `UpdateContainerResources`: "updates ContainerConfig of the container synchronously".

use std::sync::Arc;

use berth_proto::cri;
use tonic::Status;

use crate::container::update;
use crate::server::Server;
use crate::status;

/// Sets the limits that are given.
pub async fn update_container_resources(
    server: &Arc<Server>,
    who: &str,
    request: cri::UpdateContainerResourcesRequest,
) -> Result<cri::UpdateContainerResourcesResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    let limits = request
        .linux
        .ok_or_else(|| status::invalid("linux", "is required"))?;
    update::update(server, &record, &limits, who)
        .await
        .map_err(status::from)?;
    Ok(cri::UpdateContainerResourcesResponse {})
}
