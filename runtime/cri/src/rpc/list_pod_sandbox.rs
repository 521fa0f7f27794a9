//! `ListPodSandbox`.

use berth_proto::cri;

use crate::rpc::filter;
use crate::server::Server;

/// Lists the sandboxes the filter lets through.
pub fn list_pod_sandbox(
    server: &Server,
    request: cri::ListPodSandboxRequest,
) -> cri::ListPodSandboxResponse {
    let filter = request.filter.unwrap_or_default();
    let fits = |item: &cri::PodSandbox| {
        (filter.id.is_empty() || item.id.starts_with(&filter.id))
            && filter.state.is_none_or(|wanted| wanted.state == item.state)
            && filter::labels(&filter.label_selector, &item.labels)
    };
    let records = server.sandboxes.list();
    let created = records.iter().filter(|record| record.is_created());
    let items = created
        .map(|record| record.to_item())
        .filter(fits)
        .collect();
    cri::ListPodSandboxResponse { items }
}
