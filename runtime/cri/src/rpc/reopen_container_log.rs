//! `ReopenContainerLog`: "asks runtime to reopen the stdout/stderr log file for the
//! container; if the container is not running, must return an error".

use std::sync::Arc;

use berth_monitor::protocol::Request;
use berth_proto::cri;
use tonic::Status;

use crate::container::exec::ExecError;
use crate::server::Server;
use crate::status;

/// Opens the log anew, after the file was renamed.
pub async fn reopen_container_log(
    server: &Arc<Server>,
    request: cri::ReopenContainerLogRequest,
) -> Result<cri::ReopenContainerLogResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    if record.pid().is_none() {
        return Err(status::from(ExecError::NotRunning));
    }
    let reopen = Request::ReopenLog {
        container: record.id.to_string(),
    };
    server
        .monitor(&record.sandbox)
        .call(reopen)
        .await
        .map_err(status::from)?;
    Ok(cri::ReopenContainerLogResponse {})
}
