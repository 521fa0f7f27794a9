//! StopPodSandbox: everything of a pod but its records goes. The same steps undo a
//! sandbox that was never finished, and clear up after a lost monitor.
//!
//! Every step copes with its effect being gone already or never having happened, and all
//! steps are tried, whatever fails; a second stop continues where the first could not.

use std::sync::Arc;
use std::time::Duration;

use berth_monitor::protocol::Request;
use berth_oci::cgroup::{Cgroup, CgroupError};
use berth_proto::cri;
use berth_sys::crash_point;
use futures::future::join_all;

use crate::container::end::{self, EndContainerError};
use crate::id::SandboxId;
use crate::record::RecordError;
use crate::sandbox::model::{Phase, SandboxRecord};
use crate::sandbox::network::NetworkError;
use crate::sandbox::shm::{self, ShmError};
use crate::server::Server;

/// How long the exits of killed containers may take until they are recorded.
const EXITS_WITHIN: Duration = Duration::from_secs(10);

/// What is left of a sandbox, and why. The first failure; the others are logged.
#[derive(Debug, thiserror::Error)]
pub enum StopSandboxError {
    /// A container does not end.
    #[error("cannot end a container of the sandbox")]
    Container(#[source] EndContainerError),
    /// The network keeps something.
    #[error("cannot disconnect the sandbox")]
    Network(#[source] NetworkError),
    /// A cgroup stays.
    #[error("cannot remove the cgroup of the sandbox")]
    Cgroup(#[source] CgroupError),
    /// Its shared memory stays.
    #[error("cannot remove the shared memory of the sandbox")]
    Shm(#[source] ShmError),
    /// The change cannot be recorded.
    #[error("cannot record the end of the sandbox")]
    Record(#[source] RecordError),
    /// The task that did the work was ended with the server.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Stops the sandbox; succeeds when it is stopped or gone already. Concurrent calls join.
pub async fn stop(server: &Arc<Server>, id: &SandboxId) -> Result<(), Arc<StopSandboxError>> {
    let (task_server, task_id) = (server.clone(), id.clone());
    let work = move || async move { take_down(&task_server, &task_id).await.map_err(Arc::new) };
    let outcome = server.running.stop_sandbox.join(id.clone(), work).await;
    outcome.unwrap_or_else(|| Err(Arc::new(StopSandboxError::ShuttingDown)))
}

async fn take_down(server: &Arc<Server>, id: &SandboxId) -> Result<(), StopSandboxError> {
    let Some(record) = server.sandboxes.get(id) else {
        return Ok(());
    };
    if record.phase == Phase::Stopped {
        return Ok(());
    }
    let was_ready = record.phase == Phase::Ready;
    let stopping = server
        .sandboxes
        .update(id, |record| record.phase = Phase::Stopping);
    stopping.map_err(StopSandboxError::Record)?;
    crash_point!("stop sandbox: intent recorded");

    let mut outcome = end_containers(server, id).await;
    crash_point!("stop sandbox: containers ended");
    let attached = record.attached.as_ref();
    if attached.is_some_and(|attached| server.network.needs_namespace(attached)) {
        keep_first(&mut outcome, disconnect(server, &record).await);
        end_monitor(server, &record).await;
    } else {
        end_monitor(server, &record).await;
        keep_first(&mut outcome, disconnect(server, &record).await);
    }
    keep_first(&mut outcome, remove_cgroups(server, &record).await);
    crash_point!("stop sandbox: cgroups removed");
    let unmounted = shm::unmount(&server.sandboxes.dir(id));
    keep_first(&mut outcome, unmounted.map_err(StopSandboxError::Shm));
    crash_point!("stop sandbox: shared memory unmounted");
    outcome?;

    let stopped = server.sandboxes.update(id, |record| {
        record.phase = Phase::Stopped;
        record.pause_pid = 0;
    });
    stopped.map_err(StopSandboxError::Record)?;
    crash_point!("stop sandbox: end recorded");
    if was_ready {
        server.emit(
            id,
            id.as_str(),
            cri::ContainerEventType::ContainerStoppedEvent,
        );
    }
    Ok(())
}

fn keep_first(outcome: &mut Result<(), StopSandboxError>, next: Result<(), StopSandboxError>) {
    match (&outcome, next) {
        (Ok(()), next) => *outcome = next,
        (Err(_), Err(error)) => {
            tracing::warn!(error = %crate::status::chain(&error), "stopping a sandbox");
        }
        (Err(_), Ok(())) => {}
    }
}

async fn end_containers(server: &Arc<Server>, id: &SandboxId) -> Result<(), StopSandboxError> {
    let containers = server.containers.of(id);
    let ends = containers
        .iter()
        .map(|container| end::kill(server, &container.id, EXITS_WITHIN));
    let mut outcome = Ok(());
    for ended in join_all(ends).await {
        keep_first(&mut outcome, ended.map_err(StopSandboxError::Container));
    }
    outcome
}

/// Removes what the network keeps for the pod, in its namespace too while that lives.
async fn disconnect(server: &Arc<Server>, record: &SandboxRecord) -> Result<(), StopSandboxError> {
    let Some(attached) = &record.attached else {
        return Ok(());
    };
    let path = record.namespace_path("net");
    let lives = record.pause_pid > 0
        && record.boot_id == server.boot_id
        && std::fs::metadata(path).is_ok()
        && server
            .monitor(&record.id)
            .call(Request::State)
            .await
            .is_ok();
    server
        .network
        .detach(attached, lives)
        .await
        .map_err(StopSandboxError::Network)?;
    crash_point!("stop sandbox: network detached");
    let recorded = server
        .sandboxes
        .update(&record.id, |record| record.attached = None);
    recorded.map(drop).map_err(StopSandboxError::Record)
}

/// A monitor that does not answer is killed with its cgroup.
async fn end_monitor(server: &Arc<Server>, record: &SandboxRecord) {
    if let Err(error) = server.monitor(&record.id).call(Request::Shutdown).await
        && !error.is_gone()
    {
        tracing::warn!(
            sandbox = %record.id, error = %crate::status::chain(&error), "monitor is killed"
        );
        // Now: whoever else calls it must not wait for it.
        let leaf = server.cgroups.mount.join(record.leaf_cgroup());
        let killed = tokio::task::spawn_blocking(move || remove_cgroup(&leaf)).await;
        if let Ok(Err(error)) = killed {
            tracing::warn!(sandbox = %record.id, error = %crate::status::chain(&error), "monitor stays");
        }
    }
    crash_point!("stop sandbox: monitor ended");
}

/// Kills what is left in the pod's own groups and removes them. A parent that was given
/// is not ours: only our leaf and our containers in it go. Where the monitor did its work
/// there is nothing left to do.
async fn remove_cgroups(
    server: &Arc<Server>,
    record: &SandboxRecord,
) -> Result<(), StopSandboxError> {
    let mount = server.cgroups.mount.clone();
    let mut groups: Vec<_> = server
        .containers
        .of(&record.id)
        .iter()
        .map(|container| container.cgroup.clone())
        .collect();
    groups.push(record.leaf_cgroup());
    if record.cgroup.owned {
        groups.push(record.cgroup.path.clone());
    }
    let removed = tokio::task::spawn_blocking(move || {
        groups
            .iter()
            .try_for_each(|group| remove_cgroup(&mount.join(group)))
    });
    let removed = removed.await.map_err(|_| StopSandboxError::ShuttingDown)?;
    removed.map_err(StopSandboxError::Cgroup)
}

/// Kills and removes the group at `path`; it may be gone already.
pub fn remove_cgroup(path: &std::path::Path) -> Result<(), CgroupError> {
    let group = match Cgroup::open(path) {
        Ok(group) => group,
        Err(CgroupError::Access { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    group.kill()?;
    group.remove()
}

/// Removes the group at `path` when nothing is in it; it may be gone already.
pub fn remove_empty(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
