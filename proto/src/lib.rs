//! The CRI v1 messages, clients and servers, generated at build time from
//! `cri-v1.proto`; no logic lives here.

/// CRI v1 (`runtime.v1`), as of Kubernetes 1.36.
#[allow(clippy::all, clippy::too_many_lines, missing_docs)]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}
