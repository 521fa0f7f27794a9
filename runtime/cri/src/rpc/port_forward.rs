//! `PortForward`: "prepares a streaming endpoint to forward ports from a sandbox".

use berth_proto::cri;
use tonic::Status;

use crate::sandbox::model::Phase;
use crate::server::Server;
use crate::status;
use crate::streaming::Session;

/// Gives the URL at which the pod's ports are reached; the streams name the ports.
pub fn port_forward(
    server: &Server,
    request: cri::PortForwardRequest,
) -> Result<cri::PortForwardResponse, Status> {
    let record = server
        .sandboxes
        .find(&request.pod_sandbox_id)
        .map_err(status::from)?;
    if record.phase != Phase::Ready {
        return Err(Status::failed_precondition("the sandbox is not ready"));
    }
    let session = Session::PortForward {
        sandbox: record.id.clone(),
    };
    let url = server.streams.allow(session).map_err(status::from)?;
    Ok(cri::PortForwardResponse { url })
}
