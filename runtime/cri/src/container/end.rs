//! StopContainer and the forced end: signals by way of the monitor, then its record.

use std::sync::Arc;
use std::time::Duration;

use berth_monitor::protocol::Request;

use crate::container::model::{ContainerRecord, Exit, State};
use crate::container::signal;
use crate::id::ContainerId;
use crate::monitor::MonitorError;
use crate::sandbox::{stop, watch};
use crate::server::Server;
use crate::time;

/// How long a killed container may take until its exit is recorded.
const KILLED_WITHIN: Duration = Duration::from_secs(30);

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
}

/// Asks the container to end and kills it after `grace`; succeeds when it does not run.
pub async fn stop(
    server: &Arc<Server>,
    record: &ContainerRecord,
    grace: Duration,
) -> Result<(), EndContainerError> {
    if !may_run(record) {
        return Ok(());
    }
    if !grace.is_zero() {
        send(server, record, record.stop_signal, false).await?;
        let ended = server.containers.ended(&record.id);
        if tokio::time::timeout(grace, ended).await.is_ok() {
            return Ok(());
        }
    }
    kill(server, record, KILLED_WITHIN).await
}

/// Kills every process of the container and waits up to `within` until that is recorded.
pub async fn kill(
    server: &Arc<Server>,
    record: &ContainerRecord,
    within: Duration,
) -> Result<(), EndContainerError> {
    if !may_run(record) {
        return Ok(());
    }
    match send(server, record, signal::KILL, true).await {
        Ok(()) => {}
        // No monitor: nobody would record the end.
        Err(EndContainerError::Signal { source, .. }) if source.is_gone() => {
            return end_unseen(server, record).await;
        }
        Err(error) => return Err(error),
    }
    let ended = server.containers.ended(&record.id);
    match tokio::time::timeout(within, ended).await {
        Ok(()) => Ok(()),
        Err(_) => Err(EndContainerError::Stuck {
            container: record.id.clone(),
            within_seconds: within.as_secs(),
        }),
    }
}

fn may_run(record: &ContainerRecord) -> bool {
    match record.state {
        State::Starting | State::Running { .. } => true,
        State::Reserved | State::Created | State::Exited(_) => false,
    }
}

async fn end_unseen(server: &Server, record: &ContainerRecord) -> Result<(), EndContainerError> {
    let path = server.cgroups.mount.join(&record.cgroup);
    let removed = tokio::task::spawn_blocking(move || stop::remove_cgroup(&path)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(container = %record.id, error = %crate::status::chain(&error), "cgroup stays");
    }
    let started_at = match record.state {
        State::Running { started_at, .. } => started_at,
        _ => 0,
    };
    watch::end(
        server,
        &record.id,
        Exit::unseen(started_at, time::now(), "MonitorLost"),
    );
    Ok(())
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
