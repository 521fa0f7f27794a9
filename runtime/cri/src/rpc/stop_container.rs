//! `StopContainer`: "stops a running container with a grace period (i.e., timeout);
//! idempotent, and must not return an error if the container has already been stopped".

use std::sync::Arc;
use std::time::Duration;

use berth_proto::cri;
use tonic::Status;

use crate::container::end;
use crate::server::Server;
use crate::status;
use crate::store::FindError;

/// Stops the container; one that is not there is stopped.
pub async fn stop_container(
    server: &Arc<Server>,
    request: cri::StopContainerRequest,
) -> Result<cri::StopContainerResponse, Status> {
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    match server.containers.find(&request.container_id) {
        Ok(record) => end::stop(server, &record.id, grace)
            .await
            .map_err(status::from)?,
        Err(FindError::Unknown { .. }) => {}
        Err(error) => return Err(status::from(error)),
    }
    Ok(cri::StopContainerResponse {})
}
