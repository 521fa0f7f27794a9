//! `ExecSync`: "runs a command in a container synchronously". At the timeout the command
//! and everything it started is killed.

use std::sync::Arc;
use std::time::Duration;

use berth_proto::cri;
use tonic::Status;

use crate::container::exec;
use crate::server::Server;
use crate::status;

/// Executes the command and gives its output.
pub async fn exec_sync(
    server: &Arc<Server>,
    who: &str,
    request: cri::ExecSyncRequest,
) -> Result<cri::ExecSyncResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    let seconds = u64::try_from(request.timeout)
        .ok()
        .filter(|seconds| *seconds > 0);
    let timeout = seconds.map(Duration::from_secs);
    let command = exec::Command {
        args: request.cmd,
        who: who.to_owned(),
    };
    let executed = exec::sync(server, &record, &command, timeout);
    let output = super::until_ending(server, executed)
        .await?
        .map_err(status::from)?;
    let exec::Output {
        stdout,
        stderr,
        code,
    } = output;
    Ok(cri::ExecSyncResponse {
        stdout,
        stderr,
        exit_code: code,
    })
}
