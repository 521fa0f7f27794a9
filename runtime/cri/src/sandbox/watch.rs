//! Follows a pod's monitor: records its containers' ends as it tells them, and clears up
//! when it dies.

use std::sync::Arc;
use std::time::Duration;

use berth_monitor::protocol::{
    ContainerState, Event, EventKind, ExitRecord, PodState, Reply, Request,
};
use berth_proto::cri;

use crate::container::end;
use crate::container::model::{ContainerRecord, Exit, State};
use crate::id::{ContainerId, SandboxId};
use crate::monitor::{Conversation, MonitorError};
use crate::record::RecordError;
use crate::sandbox::model::Phase;
use crate::sandbox::stop;
use crate::server::Server;

/// Attempts to reach a monitor again whose connection broke, before it counts as lost.
const RECONNECTS: u32 = 3;
/// Pause between them.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// Follows the monitor of `id` in a task until the sandbox is stopped or the server ends.
pub fn start(server: &Arc<Server>, id: &SandboxId) {
    let (task_server, id) = (server.clone(), id.clone());
    server.tasks.spawn(async move {
        // Nothing is lost at the end: the next server asks for the state.
        tokio::select! {
            () = follow(&task_server, &id) => {}
            () = task_server.ending.cancelled() => {}
        }
    });
}

async fn follow(server: &Arc<Server>, id: &SandboxId) {
    let mut failures = 0;
    // Also while it stops: whoever ends its containers waits for what is recorded here.
    while matches!(phase(server, id), Some(Phase::Ready | Phase::Stopping)) {
        match subscribe(server, id).await {
            Ok(mut events) => {
                failures = 0;
                while let Ok(Reply::Event(event)) = events.next().await {
                    take(server, id, event).await;
                }
                // Also when the monitor is well and only this connection is not.
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
            Err(error) if failures >= RECONNECTS => {
                let phase = phase(server, id);
                if phase == Some(Phase::Ready) {
                    tracing::error!(sandbox = %id, error = %crate::status::chain(&error), "monitor lost");
                }
                // Whoever stops it may be waiting for an end that nobody else records now.
                if matches!(phase, Some(Phase::Ready | Phase::Stopping)) {
                    lost(server, id).await;
                }
                return;
            }
            Err(_) => {
                failures += 1;
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }
    }
}

fn phase(server: &Server, id: &SandboxId) -> Option<Phase> {
    server.sandboxes.get(id).map(|record| record.phase)
}

/// Subscribes first and asks for the state second: what happens in between comes twice,
/// which does no harm, instead of never.
async fn subscribe(server: &Arc<Server>, id: &SandboxId) -> Result<Conversation, MonitorError> {
    let monitor = server.monitor(id);
    let (events, _, _) = monitor
        .converse(Request::Subscribe { after: 0 }, Vec::new())
        .await?;
    let Reply::State(state) = monitor.call(Request::State).await? else {
        return Err(MonitorError::Unexpected);
    };
    reconcile(server, &state);
    Ok(events)
}

/// Records what a monitor's state tells that is not recorded yet.
pub fn reconcile(server: &Server, state: &PodState) {
    for container in &state.containers {
        match container {
            ContainerState {
                exit: Some(exit), ..
            } => ended(server, exit),
            ContainerState {
                id,
                pid: Some(pid),
                started_at,
                ..
            } => {
                running(server, &ContainerId::from(id.as_str()), *pid, *started_at);
            }
            ContainerState { .. } => {}
        }
    }
}

async fn take(server: &Arc<Server>, id: &SandboxId, event: Event) {
    match event.kind {
        EventKind::Exited(exit) => ended(server, &exit),
        EventKind::Started {
            container,
            pid,
            started_at,
        } => {
            running(
                server,
                &ContainerId::from(container.as_str()),
                pid,
                started_at,
            );
        }
        // The exit record tells whether the container itself fell to it.
        EventKind::Oom { container } => {
            tracing::warn!(%container, "a process was killed for want of memory");
        }
        EventKind::PauseExited => {
            tracing::error!(sandbox = %id, "the pod's pause process ended");
            lost(server, id).await;
        }
    }
}

/// Records that a container runs and is in the audit log, with what the host does not enforce.
/// That it runs is told once, here or by [`running`].
pub fn started(
    server: &Server,
    id: &ContainerId,
    pid: i32,
    started_at: i64,
    not_enforced: Vec<String>,
) {
    let mut first = false;
    let updated = server.containers.update(id, |record| {
        record.unaudited = false;
        record.not_enforced = not_enforced;
        first = record.state == State::Starting;
        if first {
            record.state = State::Running { pid, started_at };
        }
    });
    tell_start(server, id, updated.map(|record| record.filter(|_| first)));
}

/// Records that a container runs, once, and tells it.
pub fn running(server: &Server, id: &ContainerId, pid: i32, started_at: i64) {
    let starting = server
        .containers
        .get(id)
        .is_some_and(|record| record.state == State::Starting);
    if !starting {
        return;
    }
    let updated = server.containers.update(id, |record| {
        // Whoever comes second finds it running or ended.
        if record.state == State::Starting {
            record.state = State::Running { pid, started_at };
        }
    });
    tell_start(server, id, updated);
}

fn tell_start(
    server: &Server,
    id: &ContainerId,
    updated: Result<Option<Arc<ContainerRecord>>, RecordError>,
) {
    match updated {
        Ok(Some(record)) => {
            let kind = cri::ContainerEventType::ContainerStartedEvent;
            server.emit(&record.sandbox, id.as_str(), kind);
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(container = %id, error = %crate::status::chain(&error), "start not recorded");
        }
    }
}

/// Records what the monitor saw of a container's end, once, and tells it.
pub fn ended(server: &Server, exit: &ExitRecord) {
    let id = ContainerId::from(exit.container.as_str());
    running(server, &id, 0, exit.started_at);
    end(server, &id, Exit::seen(exit));
}

/// Records a container's end, once, and tells it.
pub fn end(server: &Server, id: &ContainerId, exit: Exit) {
    match server.containers.end(id, exit) {
        Ok(Some(record)) => {
            let kind = cri::ContainerEventType::ContainerStoppedEvent;
            server.emit(&record.sandbox, id.as_str(), kind);
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(container = %id, error = %crate::status::chain(&error), "end not recorded");
        }
    }
}

/// Nobody watches the pod's processes any more: they are killed and the sandbox stopped;
/// the kubelet makes a new one. Never two instances.
pub async fn lost(server: &Arc<Server>, id: &SandboxId) {
    for container in server.containers.of(id) {
        if container.pid().is_some() {
            end::without_monitor(server, &container).await;
        }
    }
    if let Err(error) = stop::stop(server, id).await {
        tracing::error!(sandbox = %id, error = %crate::status::chain(&error), "not cleared up");
    }
}
