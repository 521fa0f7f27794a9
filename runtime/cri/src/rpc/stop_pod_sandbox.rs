//! `StopPodSandbox`: "stops any running process that is part of the sandbox and reclaims
//! network resources; idempotent, and must not return an error if all relevant resources
//! have already been reclaimed".

use std::sync::Arc;

use berth_proto::cri;
use tonic::Status;

use crate::sandbox::stop;
use crate::server::Server;
use crate::status;
use crate::store::FindError;

/// Stops the sandbox; one that is not there is stopped.
pub async fn stop_pod_sandbox(
    server: &Arc<Server>,
    request: cri::StopPodSandboxRequest,
) -> Result<cri::StopPodSandboxResponse, Status> {
    match server.sandboxes.find(&request.pod_sandbox_id) {
        Ok(record) => stop::stop(server, &record.id)
            .await
            .map_err(status::shared)?,
        Err(FindError::Unknown { .. }) => {}
        Err(error) => return Err(status::from(error)),
    }
    Ok(cri::StopPodSandboxResponse {})
}
