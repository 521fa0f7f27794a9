//! `RemovePodSandbox`: "if there are any running containers in the sandbox, they must be
//! forcibly terminated and removed; idempotent, and must not return an error if the
//! sandbox has already been removed".

use std::sync::Arc;

use berth_proto::cri;
use tonic::Status;

use crate::sandbox::remove;
use crate::server::Server;
use crate::status;
use crate::store::FindError;

/// Removes the sandbox; one that is not there is removed.
pub async fn remove_pod_sandbox(
    server: &Arc<Server>,
    request: cri::RemovePodSandboxRequest,
) -> Result<cri::RemovePodSandboxResponse, Status> {
    match server.sandboxes.find(&request.pod_sandbox_id) {
        Ok(record) => remove::remove(server, &record.id)
            .await
            .map_err(status::from)?,
        Err(FindError::Unknown { .. }) => {}
        Err(error) => return Err(status::from(error)),
    }
    Ok(cri::RemovePodSandboxResponse {})
}
