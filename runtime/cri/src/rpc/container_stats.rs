//! `ContainerStats` and `ListContainerStats`.

use berth_proto::cri;
use tonic::Status;

use crate::rpc::filter;
use crate::server::Server;
use crate::stats;
use crate::status;

/// Tells the use of one container.
pub async fn container_stats(
    server: &Server,
    request: cri::ContainerStatsRequest,
) -> Result<cri::ContainerStatsResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    if record.pid().is_none() {
        return Err(Status::failed_precondition("the container is not running"));
    }
    let stats = stats::of_container(server, &record).await;
    Ok(cri::ContainerStatsResponse { stats: Some(stats) })
}

/// Tells the use of the running containers the filter lets through.
pub async fn list_container_stats(
    server: &Server,
    request: cri::ListContainerStatsRequest,
) -> cri::ListContainerStatsResponse {
    let filter = request.filter.unwrap_or_default();
    let mut stats = Vec::new();
    for record in server.containers.list() {
        let fits = record.pid().is_some()
            && record.id.as_str().starts_with(&filter.id)
            && record.sandbox.as_str().starts_with(&filter.pod_sandbox_id)
            && filter::labels(&filter.label_selector, &record.config.labels);
        if fits {
            stats.push(stats::of_container(server, &record).await);
        }
    }
    cri::ListContainerStatsResponse { stats }
}
