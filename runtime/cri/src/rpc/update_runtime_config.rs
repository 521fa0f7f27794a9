//! `UpdateRuntimeConfig`: the kubelet tells the node's pod CIDR.

use std::sync::PoisonError;

use berth_proto::cri;

use crate::server::Server;

/// Remembers the CIDR; networks are configured by their own files, which name subnets.
pub fn update_runtime_config(
    server: &Server,
    request: cri::UpdateRuntimeConfigRequest,
) -> cri::UpdateRuntimeConfigResponse {
    let network = request
        .runtime_config
        .and_then(|config| config.network_config);
    if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
        let mut known = server
            .pod_cidr
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(network.pod_cidr);
    }
    cri::UpdateRuntimeConfigResponse {}
}
