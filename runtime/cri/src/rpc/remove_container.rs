//! `RemoveContainer`: "if the container is running, the container must be forcibly
//! removed; idempotent, and must not return an error if it has already been removed".

use std::sync::Arc;

use berth_proto::cri;
use tonic::Status;

use crate::container::remove;
use crate::server::Server;
use crate::status;
use crate::store::FindError;

/// Removes the container; one that is not there is removed.
pub async fn remove_container(
    server: &Arc<Server>,
    request: cri::RemoveContainerRequest,
) -> Result<cri::RemoveContainerResponse, Status> {
    match server.containers.find(&request.container_id) {
        Ok(record) => remove::remove(server, &record.id)
            .await
            .map_err(status::from)?,
        Err(FindError::Unknown { .. }) => {}
        Err(error) => return Err(status::from(error)),
    }
    Ok(cri::RemoveContainerResponse {})
}
