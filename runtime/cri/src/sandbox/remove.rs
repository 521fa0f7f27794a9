//! RemovePodSandbox: stop, then every container, then the records.

use std::sync::Arc;

use berth_proto::cri;
use berth_sys::crash_point;

use crate::container::remove::{self, RemoveContainerError};
use crate::id::SandboxId;
use crate::record::RecordError;
use crate::sandbox::stop::{self, StopSandboxError};
use crate::server::Server;

/// Why a sandbox is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveSandboxError {
    /// It does not stop.
    #[error("cannot stop the sandbox first")]
    Stop(#[source] Arc<StopSandboxError>),
    /// A container of it cannot be removed.
    #[error("cannot remove a container of the sandbox")]
    Container(#[source] RemoveContainerError),
    /// Its records cannot be removed.
    #[error("cannot remove the records of the sandbox")]
    Record(#[source] RecordError),
}

/// Removes the sandbox and its containers; succeeds when it is gone already.
pub async fn remove(server: &Arc<Server>, id: &SandboxId) -> Result<(), RemoveSandboxError> {
    stop::stop(server, id)
        .await
        .map_err(RemoveSandboxError::Stop)?;
    crash_point!("remove sandbox: stopped");
    for container in server.containers.of(id) {
        remove::remove(server, &container.id)
            .await
            .map_err(RemoveSandboxError::Container)?;
    }
    crash_point!("remove sandbox: containers removed");
    if server.sandboxes.get(id).is_none() {
        return Ok(());
    }
    server
        .sandboxes
        .remove(id)
        .map_err(RemoveSandboxError::Record)?;
    crash_point!("remove sandbox: records removed");
    server.emit(
        id,
        id.as_str(),
        cri::ContainerEventType::ContainerDeletedEvent,
    );
    Ok(())
}
