//! `Version`: who serves.

use berth_proto::cri;

/// The version of the CRI, which kubelets compare.
const API_VERSION: &str = "v1";

/// Tells name and version of the runtime.
pub fn version() -> cri::VersionResponse {
    cri::VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "berth".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: API_VERSION.to_owned(),
    }
}
