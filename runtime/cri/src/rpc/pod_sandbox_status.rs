//! `PodSandboxStatus`.

use std::collections::HashMap;

use berth_proto::cri;
use serde_json::json;
use tonic::Status;

use crate::server::Server;
use crate::status;
use crate::time;

/// Tells the status of the sandbox and of its containers.
pub fn pod_sandbox_status(
    server: &Server,
    request: cri::PodSandboxStatusRequest,
) -> Result<cri::PodSandboxStatusResponse, Status> {
    let record = server
        .sandboxes
        .find(&request.pod_sandbox_id)
        .map_err(status::from)?;
    let containers = server.containers.of(&record.id);
    let mut info = HashMap::new();
    if request.verbose {
        let details = json!({
            "pid": record.pause_pid,
            "phase": record.phase,
            "cgroup": record.cgroup.path,
            "runtimeHandler": record.runtime_handler,
            "network": record.attached.as_ref().map(|attached| &attached.network.name),
        });
        info.insert("info".to_owned(), details.to_string());
    }
    Ok(cri::PodSandboxStatusResponse {
        status: Some(record.to_status()),
        info,
        containers_statuses: containers.iter().map(|record| record.to_status()).collect(),
        timestamp: time::now(),
    })
}
