//! `Attach`: "prepares a streaming endpoint to attach to a running container".

use berth_proto::cri;
use tonic::Status;

use crate::server::Server;
use crate::status;
use crate::streaming::{Session, Streams};

/// Gives the URL at which the container's own streams are.
pub fn attach(server: &Server, request: cri::AttachRequest) -> Result<cri::AttachResponse, Status> {
    let record = super::running(server, &request.container_id)?;
    let streams = super::streams(Streams {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        tty: request.tty,
    })?;
    let session = Session::Attach {
        container: record.id.clone(),
        streams,
    };
    let url = server.streams.allow(session).map_err(status::from)?;
    Ok(cri::AttachResponse { url })
}
