//! `PodSandboxStats` and `ListPodSandboxStats`.

use berth_proto::cri;
use tonic::Status;

use crate::rpc::filter;
use crate::sandbox::model::Phase;
use crate::server::Server;
use crate::stats;
use crate::status;

/// Tells the use of one pod.
pub async fn pod_sandbox_stats(
    server: &Server,
    request: cri::PodSandboxStatsRequest,
) -> Result<cri::PodSandboxStatsResponse, Status> {
    let record = server
        .sandboxes
        .find(&request.pod_sandbox_id)
        .map_err(status::from)?;
    if record.phase != Phase::Ready {
        return Err(Status::failed_precondition("the sandbox is not ready"));
    }
    let stats = stats::of_sandbox(server, &record).await;
    Ok(cri::PodSandboxStatsResponse { stats: Some(stats) })
}

/// Tells the use of the ready pods the filter lets through.
pub async fn list_pod_sandbox_stats(
    server: &Server,
    request: cri::ListPodSandboxStatsRequest,
) -> cri::ListPodSandboxStatsResponse {
    let filter = request.filter.unwrap_or_default();
    let mut stats = Vec::new();
    for record in server.sandboxes.list() {
        let fits = record.phase == Phase::Ready
            && record.id.as_str().starts_with(&filter.id)
            && filter::labels(&filter.label_selector, &record.config.labels);
        if fits {
            stats.push(stats::of_sandbox(server, &record).await);
        }
    }
    cri::ListPodSandboxStatsResponse { stats }
}
