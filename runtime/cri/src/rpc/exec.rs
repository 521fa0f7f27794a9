//! `Exec`: "prepares a streaming endpoint to execute a command in the container".

use berth_proto::cri;
use tonic::Status;

use crate::container::exec::{Command, ExecError};
use crate::server::Server;
use crate::status;
use crate::streaming::{Session, Streams};

/// Gives the URL at which the command is executed.
pub fn exec(
    server: &Server,
    who: &str,
    request: cri::ExecRequest,
) -> Result<cri::ExecResponse, Status> {
    let record = super::running(server, &request.container_id)?;
    if request.cmd.is_empty() {
        return Err(status::from(ExecError::NoCommand));
    }
    let streams = super::streams(Streams {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        tty: request.tty,
    })?;
    let session = Session::Exec {
        container: record.id.clone(),
        command: Command {
            args: request.cmd,
            who: who.to_owned(),
        },
        streams,
    };
    let url = server.streams.allow(session).map_err(status::from)?;
    Ok(cri::ExecResponse { url })
}
