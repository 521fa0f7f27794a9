//! StartContainer: the monitor is asked once; its answer or its event tells the rest.

use std::sync::Arc;

use berth_monitor::protocol::{
    CgroupMode, LaunchContainer, Launched, LauncherKind, Reply, Request,
};
use berth_sys::crash_point;

use crate::audit::{self, AuditError};
use crate::config::Runtime;
use crate::container::model::{ContainerRecord, Exit, State};
use crate::container::{log, signal};
use crate::id::ContainerId;
use crate::monitor::MonitorError;
use crate::record::RecordError;
use crate::sandbox::model::Phase;
use crate::sandbox::watch;
use crate::server::Server;
use crate::time;

/// Exit code of a container that could not be started (what the kubelet knows from others).
const NOT_STARTED_CODE: i32 = 128;

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartContainerError {
    /// It is not (only) created.
    #[error("the container `{container}` is {state}, not created")]
    NotCreated {
        /// Its identifier.
        container: ContainerId,
        /// What it is.
        state: String,
    },
    /// Its sandbox does not run.
    #[error("the sandbox of the container is not ready")]
    SandboxNotReady,
    /// Its log cannot be made.
    #[error("cannot make the log of the container")]
    Log(#[source] RecordError),
    /// The monitor or the sandbox path refused.
    #[error("cannot start the container")]
    Launch(#[source] MonitorError),
    /// It cannot be put in the audit log; it was killed, or never was.
    #[error("cannot record the start of the container")]
    Audit(#[source] AuditError),
    /// The change cannot be recorded.
    #[error("cannot record the start of the container")]
    Record(#[from] RecordError),
}

/// Starts a created container for `who`; one that runs was started by a call whose answer was
/// lost.
pub async fn start(
    server: Arc<Server>,
    id: ContainerId,
    who: String,
) -> Result<(), StartContainerError> {
    let Some(record) = server.containers.get(&id) else {
        let state = "gone".to_owned();
        return Err(StartContainerError::NotCreated {
            container: id,
            state,
        });
    };
    match record.state {
        State::Created => {}
        State::Running { .. } => return Ok(()),
        State::Reserved | State::Starting | State::Exited(_) => {
            let state = format!("{:?}", record.state());
            return Err(StartContainerError::NotCreated {
                container: id,
                state,
            });
        }
    }
    let audit = server.audit.ready().await;
    audit.map_err(StartContainerError::Audit)?;
    if let Some(path) = record.log_path.clone() {
        let made = tokio::task::spawn_blocking(move || log::make(&path)).await;
        let made = made.map_err(|_| StartContainerError::Launch(MonitorError::ShuttingDown))?;
        made.map_err(StartContainerError::Log)?;
    }
    server.containers.update(&id, |record| {
        record.state = State::Starting;
        record.unaudited = true;
    })?;
    crash_point!("start container: intent recorded");
    // Only now: whoever stops the sandbox marks it and then looks for what may run, so that
    // one of us sees the other.
    let sandbox = server.sandboxes.get(&record.sandbox);
    let Some(sandbox) = sandbox.filter(|sandbox| sandbox.phase == Phase::Ready) else {
        take_back(&server, &id)?;
        return Err(StartContainerError::SandboxNotReady);
    };
    let request = launch(&server, &record, &sandbox.runtime_handler);
    let monitor = server.monitor(&record.sandbox);
    match monitor.call(Request::Launch(request)).await {
        Ok(Reply::Launched(launched)) => {
            crash_point!("start container: launched");
            launched_by(&server, &record, launched, &who).await
        }
        // Whether it was asked is not known: the next server asks the monitor.
        Err(error @ MonitorError::ShuttingDown) => Err(StartContainerError::Launch(error)),
        Ok(_) => Err(failed(&server, &id, MonitorError::Unexpected)),
        Err(error) => {
            refused(&server, &record, &error, &who).await;
            Err(failed(&server, &id, error))
        }
    }
}

/// The container runs: it is put in the audit log, or killed where that cannot be.
async fn launched_by(
    server: &Server,
    record: &ContainerRecord,
    launched: Launched,
    who: &str,
) -> Result<(), StartContainerError> {
    let id = &record.id;
    let event = audit::start(server, record, who, launched.record);
    let mut not_enforced = launched.not_enforced;
    match server.audit.append(event).await {
        Ok(degraded) => not_enforced.extend(degraded),
        Err(error) => {
            unrecorded(server, record, &error).await;
            return Err(StartContainerError::Audit(error));
        }
    }
    crash_point!("start container: audited");
    watch::started(server, id, launched.pid, launched.started_at, not_enforced);
    crash_point!("start container: recorded");
    Ok(())
}

/// Kills what was started and could not be put in the audit log.
pub async fn unrecorded(server: &Server, record: &ContainerRecord, error: &AuditError) {
    let kill = Request::Signal {
        container: record.id.to_string(),
        signal: signal::KILL,
        all: true,
    };
    match server.monitor(&record.sandbox).call(kill).await {
        Ok(_) => {}
        Err(error) if error.is_gone() => {}
        // It stays listed as what it is: running.
        Err(error) => {
            tracing::error!(container = %record.id, error = %crate::status::chain(&error), "not killed");
            return;
        }
    }
    watch::end(server, &record.id, not_started(error));
}

/// The monitor refused what the kernel made of the request: that too is put in the audit log.
async fn refused(server: &Server, record: &ContainerRecord, error: &MonitorError, who: &str) {
    let Some(seen) = error.sandbox_record() else {
        return;
    };
    let event = audit::start(server, record, who, Some(seen));
    if let Err(error) = server.audit.append(event).await {
        tracing::error!(container = %record.id, error = %crate::status::chain(&error), "refusal not recorded");
    }
}

/// Nothing was started: the container is what it was before.
pub fn take_back(server: &Server, id: &ContainerId) -> Result<(), RecordError> {
    let created = server.containers.update(id, |record| {
        if record.state == State::Starting {
            record.state = State::Created;
            record.unaudited = false;
        }
    });
    created.map(drop)
}

fn failed(server: &Server, id: &ContainerId, error: MonitorError) -> StartContainerError {
    watch::end(server, id, not_started(&error));
    StartContainerError::Launch(error)
}

fn not_started(error: &dyn std::error::Error) -> Exit {
    Exit {
        started_at: 0,
        finished_at: time::now(),
        code: NOT_STARTED_CODE,
        reason: "StartError".to_owned(),
        message: crate::status::chain(error),
    }
}

fn launch(server: &Server, record: &ContainerRecord, handler: &str) -> LaunchContainer {
    let launcher = match server.config.runtimes.get(handler) {
        Some(Runtime::Command {
            binary,
            root,
            systemd_cgroup,
        }) => LauncherKind::Command {
            binary: binary.clone(),
            root: root.clone(),
            systemd_cgroup: *systemd_cgroup,
        },
        // The handler was checked when the sandbox was made.
        Some(Runtime::Native) | None => LauncherKind::Native,
    };
    LaunchContainer {
        id: record.id.to_string(),
        bundle: server.containers.dir(&record.id),
        rootfs: record.rootfs.clone(),
        log_path: record.log_path.clone(),
        tty: record.config.tty,
        stdin: record.config.stdin,
        stdin_once: record.config.stdin_once,
        launcher,
        cgroup: CgroupMode::Managed {
            degraded_ok: server.config.allow_degraded_cgroups,
        },
    }
}
