//! `ListContainers`.

use berth_proto::cri;

use crate::container::model::State;
use crate::rpc::filter;
use crate::server::Server;

/// Lists the containers the filter lets through.
pub fn list_containers(
    server: &Server,
    request: cri::ListContainersRequest,
) -> cri::ListContainersResponse {
    let filter = request.filter.unwrap_or_default();
    let fits = |item: &cri::Container| {
        (filter.id.is_empty() || item.id.starts_with(&filter.id))
            && item.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
            && filter.state.is_none_or(|wanted| wanted.state == item.state)
            && filter::labels(&filter.label_selector, &item.labels)
    };
    let records = server.containers.list();
    let created = records
        .iter()
        .filter(|record| record.state != State::Reserved);
    let containers = created
        .map(|record| record.to_item())
        .filter(fits)
        .collect();
    cri::ListContainersResponse { containers }
}
