//! `Attach`: "prepares a streaming endpoint to attach to a running container".

use berth_proto::cri;
use tonic::Status;

use crate::container::exec::ExecError;
use crate::server::Server;
use crate::status;
use crate::streaming::{Session, Streams};

/// Gives the URL at which the container's own streams are.
pub fn attach(server: &Server, request: cri::AttachRequest) -> Result<cri::AttachResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    if record.pid().is_none() {
        return Err(status::from(ExecError::NotRunning));
    }
    let cri::AttachRequest {
        tty,
        stdin,
        stdout,
        stderr,
        ..
    } = request;
    let streams = super::streams(Streams {
        stdin,
        stdout,
        stderr,
        tty,
    })?;
    let session = Session::Attach {
        container: record.id.clone(),
        streams,
    };
    let url = server.streams.allow(session).map_err(status::from)?;
    Ok(cri::AttachResponse { url })
}
