//! `Exec`: "prepares a streaming endpoint to execute a command in the container".

use berth_proto::cri;
use tonic::Status;

use crate::container::exec::ExecError;
use crate::server::Server;
use crate::status;
use crate::streaming::{Session, Streams};

/// Gives the URL at which the command is executed.
pub fn exec(server: &Server, request: cri::ExecRequest) -> Result<cri::ExecResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    if request.cmd.is_empty() {
        return Err(status::from(ExecError::NoCommand));
    }
    if record.pid().is_none() {
        return Err(status::from(ExecError::NotRunning));
    }
    let cri::ExecRequest {
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
    let session = Session::Exec {
        container: record.id.clone(),
        command: request.cmd,
        streams,
    };
    let url = server.streams.allow(session).map_err(status::from)?;
    Ok(cri::ExecResponse { url })
}
