//! StopContainer and the forced end: signals by way of the monitor, then its record.

use std::sync::Arc;
use std::time::Duration;

use berth_monitor::protocol::Request;
use berth_sys::crash_point;

use crate::container::model::{ContainerRecord, Exit};
use crate::container::signal;
use crate::id::ContainerId;
use crate::monitor::MonitorError;
use crate::sandbox::{stop, watch};
use crate::server::Server;
use crate::time;

/// How long a killed container may take until its exit is recorded.
const KILLED_WITHIN: Duration = Duration::from_secs(30);
/// How long a start that is under way may take until the container is ended all the same.
const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// Why a container still runs, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum EndContainerError {
    /// The monitor did not take the signal.
    #[error("cannot signal the container `{container}`")]
    Signal {
        /// Its identifier.
        container: ContainerId,
        /// Why.
        #[source]
        source: MonitorError,
    },
    /// Killed, and still there: a process in the kernel that cannot be interrupted.
    #[error("the container `{container}` did not end within {within_seconds}s of being killed")]
    Stuck {
        /// Its identifier.
        container: ContainerId,
        /// The time allowed.
        within_seconds: u64,
    },
    /// The server ends; its next start knows what became of the container.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Asks the container to end and kills it after `grace`; succeeds when it does not run.
pub async fn stop(
    server: &Arc<Server>,
    id: &ContainerId,
    grace: Duration,
) -> Result<(), EndContainerError> {
    let Some(record) = settled(server, id).await else {
        return Ok(());
    };
    if !grace.is_zero() {
        match send(server, &record, record.stop_signal, false).await {
            Ok(()) => {
                crash_point!("stop container: asked");
                if ended_within(server, id, grace).await? {
                    crash_point!("stop container: ended");
                    return Ok(());
                }
            }
            // No monitor: killing knows what to do.
            Err(EndContainerError::Signal { source, .. }) if source.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    kill(server, id, KILLED_WITHIN).await
}

/// Kills every process of the container and waits up to `within` until that is recorded.
pub async fn kill(
    server: &Arc<Server>,
    id: &ContainerId,
    within: Duration,
) -> Result<(), EndContainerError> {
    let Some(record) = settled(server, id).await else {
        return Ok(());
    };
    match send(server, &record, signal::KILL, true).await {
        Ok(()) => {}
        // No monitor: nobody would record the end.
        Err(EndContainerError::Signal { source, .. }) if source.is_gone() => {
            without_monitor(server, &record).await;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    crash_point!("stop container: killed");
    if ended_within(server, id, within).await? {
        return Ok(());
    }
    Err(EndContainerError::Stuck {
        container: id.clone(),
        within_seconds: within.as_secs(),
    })
}

/// The container if it may run, once no start of it is under way: a signal that overtakes a
/// start finds nothing, and the start succeeds behind it.
async fn settled(server: &Server, id: &ContainerId) -> Option<Arc<ContainerRecord>> {
    let start = server.running.start_container.settled(id);
    let _ = tokio::time::timeout(STARTED_WITHIN, start).await;
    let record = server.containers.get(id);
    record.filter(|record| record.may_run())
}

/// Whether the end of the container was recorded in time. When the server ends nobody records
/// ends any more.
async fn ended_within(
    server: &Server,
    id: &ContainerId,
    within: Duration,
) -> Result<bool, EndContainerError> {
    tokio::select! {
        biased;
        ended = tokio::time::timeout(within, server.containers.ended(id)) => Ok(ended.is_ok()),
        () = server.ending.cancelled() => Err(EndContainerError::ShuttingDown),
    }
}

/// Kills the processes of a container that nobody watches any more, and records its end.
pub async fn without_monitor(server: &Server, record: &ContainerRecord) {
    let path = server.cgroups.mount.join(&record.cgroup);
    let removed = tokio::task::spawn_blocking(move || stop::remove_cgroup(&path)).await;
    if let Ok(Err(error)) = removed {
        tracing::error!(container = %record.id, error = %crate::status::chain(&error), "not killed");
    }
    let exit = Exit::unseen(record.started_at(), time::now(), "MonitorLost");
    watch::end(server, &record.id, exit);
}

async fn send(
    server: &Server,
    record: &ContainerRecord,
    signal: i32,
    all: bool,
) -> Result<(), EndContainerError> {
    use berth_monitor::protocol::ErrorKind;
    let request = Request::Signal {
        container: record.id.to_string(),
        signal,
        all,
    };
    match server.monitor(&record.sandbox).call(request).await {
        Ok(_) => Ok(()),
        // It never ran there: what was starting has failed, or fails now.
        Err(MonitorError::Call(error)) if error.kind() == Some(ErrorKind::NotFound) => {
            watch::end(
                server,
                &record.id,
                Exit::unseen(0, time::now(), "StartError"),
            );
            Ok(())
        }
        Err(source) => Err(EndContainerError::Signal {
            container: record.id.clone(),
            source,
        }),
    }
}
