//! `RunPodSandbox`: "creates and starts a pod-level sandbox; the sandbox is in the ready
//! state on success". A retry joins the call it repeats.

use std::sync::Arc;

use berth_proto::cri;
use tonic::Status;

use crate::sandbox::create;
use crate::sandbox::model::SandboxRecord;
use crate::server::Server;
use crate::status;

/// Makes the sandbox.
pub async fn run_pod_sandbox(
    server: &Arc<Server>,
    request: cri::RunPodSandboxRequest,
) -> Result<cri::RunPodSandboxResponse, Status> {
    let config = request
        .config
        .ok_or_else(|| status::invalid("config", "is required"))?;
    let name = SandboxRecord::name(&config);
    let task_server = server.clone();
    let operation = move || async move {
        create::create(task_server, config, request.runtime_handler)
            .await
            .map_err(Arc::new)
    };
    let made = server.running.create_sandbox.join(name, operation).await;
    let id = made.ok_or_else(status::lost)?.map_err(status::shared)?;
    Ok(cri::RunPodSandboxResponse {
        pod_sandbox_id: id.to_string(),
    })
}
