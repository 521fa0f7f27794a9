//! RemoveContainer: kill it if it runs, then monitor record, snapshot, records.

use std::sync::Arc;
use std::time::Duration;

use berth_image::SnapshotError;
use berth_monitor::protocol::Request;
use berth_oci::cgroup::CgroupError;
use berth_proto::cri;
use berth_sys::crash_point;

use crate::container::end::{self, EndContainerError};
use crate::container::model::ContainerRecord;
use crate::id::ContainerId;
use crate::record::RecordError;
use crate::sandbox::stop;
use crate::server::Server;

/// How long a killed container may take until its exit is recorded.
const KILLED_WITHIN: Duration = Duration::from_secs(30);

/// Why a container is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveContainerError {
    /// It runs and does not end.
    #[error("cannot end the container first")]
    End(#[source] EndContainerError),
    /// Its writable layer stays.
    #[error("cannot remove the root file system of the container")]
    Snapshot(#[source] SnapshotError),
    /// Its cgroup stays.
    #[error("cannot remove the cgroup of the container")]
    Cgroup(#[source] CgroupError),
    /// Its records stay.
    #[error("cannot remove the records of the container")]
    Record(#[source] RecordError),
}

/// Removes the container; succeeds when it is gone already.
pub async fn remove(server: &Arc<Server>, id: &ContainerId) -> Result<(), RemoveContainerError> {
    let Some(record) = server.containers.get(id) else {
        return Ok(());
    };
    end::kill(server, id, KILLED_WITHIN)
        .await
        .map_err(RemoveContainerError::End)?;
    crash_point!("remove container: ended");
    let forget = Request::Forget {
        container: id.to_string(),
    };
    // A monitor that is gone remembers nothing.
    let _ = server.monitor(&record.sandbox).call(forget).await;
    crash_point!("remove container: forgotten by its monitor");
    discard(server, &record).await?;
    server.emit(
        &record.sandbox,
        id.as_str(),
        cri::ContainerEventType::ContainerDeletedEvent,
    );
    Ok(())
}

/// Removes what a container that does not run has left, and its records last.
pub async fn discard(
    server: &Arc<Server>,
    record: &ContainerRecord,
) -> Result<(), RemoveContainerError> {
    let cgroup = server.cgroups.mount.join(&record.cgroup);
    if let Ok(removed) = tokio::task::spawn_blocking(move || stop::remove_cgroup(&cgroup)).await {
        removed.map_err(RemoveContainerError::Cgroup)?;
    }
    crash_point!("remove container: cgroup removed");
    let removed = server.images.remove_snapshot(record.id.as_str()).await;
    removed.map_err(RemoveContainerError::Snapshot)?;
    crash_point!("remove container: snapshot removed");
    server.cpu_samples.forget(record.id.as_str());
    server
        .containers
        .remove(&record.id)
        .map_err(RemoveContainerError::Record)?;
    crash_point!("remove container: records removed");
    Ok(())
}
