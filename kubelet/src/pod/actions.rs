//! What to do next for a pod. Pure: the pod, what the runtime has, what the probes say, the
//! back-off and the time go in; a list of actions comes out, `execute` performs it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use sha2::{Digest, Sha256};

use super::backoff::Backoff;
use super::runtime::{ContainerRecord, ContainerState, PodRuntime, Sandbox};
use super::{RestartPolicy, containers, host_network, init_containers, is_sidecar, key, uid};
use crate::probe::{Kind, Snapshot};

/// One round of actions, performed in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodActions {
    /// Stop every container and sandbox first: they cannot be used any more.
    pub stop_all: bool,
    /// Make a sandbox with this attempt number; the next round starts containers.
    pub new_sandbox: Option<u32>,
    /// Containers to stop.
    pub kill: Vec<Kill>,
    /// Containers to start, in order.
    pub start: Vec<Start>,
    /// Containers that must wait, with the time left.
    pub waiting: Vec<Waiting>,
}

/// Stop one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// CRI id.
    pub id: String,
    /// Name in the spec.
    pub name: String,
    /// Text of the `Killing` event.
    pub message: String,
    /// The failing probe's own grace period, seconds.
    pub grace: Option<i64>,
}

/// Start one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Name in the spec.
    pub name: String,
    /// Restart count of the new instance.
    pub attempt: u32,
    /// When the instance before ended, milliseconds since the epoch.
    pub ended: Option<i64>,
}

/// A container in restart back-off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Name in the spec.
    pub name: String,
    /// Time left.
    pub left: Duration,
    /// `back-off 10s restarting failed container=… pod=…`.
    pub message: String,
}

/// Everything a decision depends on besides the pod.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Sandboxes and containers.
    pub runtime: &'a PodRuntime,
    /// Probe results.
    pub probes: &'a Snapshot,
    /// Restart back-off.
    pub backoff: &'a Backoff,
    /// Milliseconds since the epoch.
    pub now: i64,
}

/// Decides the next round of actions.
#[must_use]
pub fn compute_pod_actions(pod: &Pod, world: World<'_>) -> PodActions {
    let mut actions = PodActions::default();
    let Some(sandbox) = usable_sandbox(pod, world.runtime) else {
        if worth_a_sandbox(pod, world.runtime) {
            let next = world.runtime.sandboxes.first().map_or(0, |s| s.attempt + 1);
            actions.new_sandbox = Some(next);
            actions.stop_all = !world.runtime.sandboxes.is_empty();
        }
        return actions;
    };
    let sandbox = sandbox.id.clone();
    let initialized = containers(pod)
        .iter()
        .any(|c| world.runtime.latest_in(&sandbox, &c.name).is_some());
    if !init_step(pod, &sandbox, initialized, world, &mut actions) {
        return actions;
    }
    for container in containers(pod) {
        app_step(pod, container, &sandbox, world, &mut actions);
    }
    actions
}

/// Identity of a container's definition: a change of name or image makes a new container.
#[must_use]
pub fn container_hash(container: &Container) -> String {
    let mut hash = Sha256::new();
    hash.update(container.name.as_bytes());
    hash.update([0]);
    hash.update(container.image.as_deref().unwrap_or_default().as_bytes());
    hex::encode(&hash.finalize()[..4])
}

/// Key of a container's restart back-off.
#[must_use]
pub fn backoff_key(pod: &Pod, container: &Container) -> String {
    format!(
        "{}/{}/{}",
        uid(pod),
        container.name,
        container_hash(container)
    )
}

/// Whether an exit with this code is followed by a restart.
#[must_use]
pub fn restarts(policy: RestartPolicy, exit_code: i32) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// Whether a running container has passed its startup probe, if it has one.
#[must_use]
pub fn has_started(container: &Container, record: &ContainerRecord, probes: &Snapshot) -> bool {
    record.state == ContainerState::Running
        && (container.startup_probe.is_none()
            || probes.get(&record.id, Kind::Startup) == Some(true))
}

fn usable_sandbox<'a>(pod: &Pod, runtime: &'a PodRuntime) -> Option<&'a Sandbox> {
    if runtime.sandboxes.iter().filter(|s| s.ready).count() > 1 {
        return None;
    }
    runtime
        .ready_sandbox()
        .filter(|s| host_network(pod) || !s.ips.is_empty())
}

/// A pod whose containers are all done needs no sandbox any more.
fn worth_a_sandbox(pod: &Pod, runtime: &PodRuntime) -> bool {
    let policy = RestartPolicy::of(pod);
    if runtime.containers.is_empty() {
        return true;
    }
    if policy == RestartPolicy::Never {
        return false;
    }
    containers(pod)
        .iter()
        .any(|c| match runtime.latest(&c.name) {
            Some(record) if record.state == ContainerState::Exited => {
                restarts(policy, record.exit_code)
            }
            _ => true,
        })
}

/// Init containers and sidecars, in order; true when the app containers may go on.
fn init_step(
    pod: &Pod,
    sandbox: &str,
    initialized: bool,
    world: World<'_>,
    actions: &mut PodActions,
) -> bool {
    for container in init_containers(pod) {
        let record = world.runtime.latest_in(sandbox, &container.name);
        let done = if is_sidecar(container) {
            app_step(pod, container, sandbox, world, actions);
            record.is_some_and(|r| has_started(container, r, world.probes))
        } else {
            initialized || init_done(pod, container, record, world, actions)
        };
        if !done && !initialized {
            return false;
        }
    }
    true
}

fn init_done(
    pod: &Pod,
    container: &Container,
    record: Option<&ContainerRecord>,
    world: World<'_>,
    actions: &mut PodActions,
) -> bool {
    match record {
        None => start(pod, container, world, actions),
        Some(r) => match r.state {
            ContainerState::Running | ContainerState::Unknown => {}
            ContainerState::Created => start(pod, container, world, actions),
            ContainerState::Exited if r.exit_code == 0 => return true,
            ContainerState::Exited => {
                // An init container is retried under Always as under OnFailure.
                if RestartPolicy::of(pod) != RestartPolicy::Never {
                    start(pod, container, world, actions);
                }
            }
        },
    }
    false
}

fn app_step(
    pod: &Pod,
    container: &Container,
    sandbox: &str,
    world: World<'_>,
    actions: &mut PodActions,
) {
    let policy = if is_sidecar(container) {
        RestartPolicy::Always
    } else {
        RestartPolicy::of(pod)
    };
    let changed = |r: &ContainerRecord| !r.hash.is_empty() && r.hash != container_hash(container);
    if let Some(r) = world.runtime.latest_in(sandbox, &container.name)
        && r.state == ContainerState::Running
    {
        actions
            .kill
            .extend(kill_running(container, r, changed(r), world.probes));
        return;
    }
    match world.runtime.latest(&container.name) {
        Some(r) if r.state == ContainerState::Exited => {
            if changed(r) || restarts(policy, r.exit_code) {
                start(pod, container, world, actions);
            }
        }
        _ => start(pod, container, world, actions),
    }
}

fn kill_running(
    container: &Container,
    record: &ContainerRecord,
    changed: bool,
    probes: &Snapshot,
) -> Option<Kill> {
    let name = &container.name;
    let failed = |kind| probes.failed(&record.id, kind);
    let (message, probe) = if changed {
        let text = format!("Container {name} definition changed, will be restarted");
        (text, None)
    } else if failed(Kind::Liveness) {
        let text = format!("Container {name} failed liveness probe, will be restarted");
        (text, container.liveness_probe.as_ref())
    } else if failed(Kind::Startup) {
        let text = format!("Container {name} failed startup probe, will be restarted");
        (text, container.startup_probe.as_ref())
    } else {
        return None;
    };
    Some(Kill {
        id: record.id.clone(),
        name: name.clone(),
        message,
        grace: probe.and_then(|p| p.termination_grace_period_seconds),
    })
}

fn start(pod: &Pod, container: &Container, world: World<'_>, actions: &mut PodActions) {
    let before = world.runtime.latest(&container.name);
    let ended = before.map(|r| match r.state {
        ContainerState::Exited => r.finished_at / 1_000_000,
        _ => r.created_at / 1_000_000,
    });
    let backoff_key = backoff_key(pod, container);
    if let Some(ended) = ended
        && let Some(left) = world.backoff.remaining(&backoff_key, ended, world.now)
    {
        let delay = world.backoff.delay(&backoff_key).unwrap_or_default();
        actions.waiting.push(Waiting {
            name: container.name.clone(),
            left,
            message: format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                go_duration(delay),
                container.name,
                super::name(pod),
                super::namespace(pod),
                uid(pod)
            ),
        });
        return;
    }
    tracing::trace!(pod = key(pod), container = container.name, "to be started");
    actions.start.push(Start {
        name: container.name.clone(),
        attempt: before.map_or(0, |r| r.attempt + 1),
        ended,
    });
}

/// A duration as kubelets print it: `10s`, `2m40s`, `5m0s`.
#[must_use]
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests;
