//! The PodStatus, generated from what the runtime has, what the probes say and what the
//! last actions ran into. Pure.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::actions::has_started;
use super::lifecycle::{Phase, Reason};
use super::phase::phase_of;
use super::runtime::{self, ContainerRecord, PodRuntime};
use super::{containers, host_network, init_containers, is_sidecar};
use crate::clock::{time_of_millis, time_of_nanos};
use crate::probe::{Kind, Snapshot};
use crate::resources::qos::QosClass;

/// Why a container is not running, as `state.waiting` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitReason {
    /// CamelCase reason, `ErrImagePull` for one.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Everything a status is made of besides the pod.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Sandboxes and containers.
    pub runtime: &'a PodRuntime,
    /// Probe results.
    pub probes: &'a Snapshot,
    /// Why containers wait, by name.
    pub waiting: &'a HashMap<String, WaitReason>,
    /// Where the pod stands in its life.
    pub phase: &'a Phase,
    /// The status written before, for times and states that must not be lost.
    pub before: &'a PodStatus,
    /// `status.hostIP`.
    pub host_ip: &'a str,
    /// Prefix of container ids: the runtime's name.
    pub runtime_name: &'a str,
    /// Milliseconds since the epoch.
    pub now: i64,
}

/// The status of a pod.
#[must_use]
pub fn generate(pod: &Pod, facts: Facts<'_>) -> PodStatus {
    if let Some(Reason::Rejected(rejection)) = facts.phase.reason()
        && facts.runtime.containers.is_empty()
    {
        return refused(pod, facts, &rejection.reason, &rejection.message);
    }
    let init: Vec<_> = init_containers(pod)
        .iter()
        .map(|c| container_status(pod, c, true, facts))
        .collect();
    let app: Vec<_> = containers(pod)
        .iter()
        .map(|c| container_status(pod, c, false, facts))
        .collect();
    let ending = !matches!(facts.phase, Phase::Syncing);
    let mut phase = phase_of(pod, &init, &app, ending);
    let (mut reason, mut message) = (None, None);
    match facts.phase.reason() {
        Some(Reason::DeadlineExceeded) => {
            phase = "Failed";
            reason = Some("DeadlineExceeded".to_owned());
            message = Some("Pod was active on the node longer than the specified deadline".into());
        }
        Some(Reason::Evicted(r) | Reason::Rejected(r)) => {
            phase = "Failed";
            reason = Some(r.reason.clone());
            message = Some(r.message.clone());
        }
        _ => {}
    }
    // A phase once final stays, whatever the records say later.
    if let Some(last) = facts.before.phase.as_deref()
        && matches!(last, "Succeeded" | "Failed")
    {
        phase = if last == "Failed" {
            "Failed"
        } else {
            "Succeeded"
        };
        reason = reason.or_else(|| facts.before.reason.clone());
        message = message.or_else(|| facts.before.message.clone());
    }
    let addresses = addresses(pod, facts, phase);
    PodStatus {
        conditions: Some(conditions(pod, &init, &app, phase, facts)),
        container_statuses: Some(app),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: Some(facts.host_ip.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: facts.host_ip.to_owned(),
        }]),
        message,
        observed_generation: pod.metadata.generation,
        phase: Some(phase.to_owned()),
        pod_ip: addresses.first().cloned(),
        pod_ips: (!addresses.is_empty())
            .then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(QosClass::of(pod).as_str().to_owned()),
        reason,
        start_time: start_time(facts),
        ..PodStatus::default()
    }
}

/// The status of a pod that this node refuses: nothing was ever started.
fn refused(pod: &Pod, facts: Facts<'_>, reason: &str, message: &str) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        host_ip: Some(facts.host_ip.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: facts.host_ip.to_owned(),
        }]),
        conditions: facts.before.conditions.clone(),
        observed_generation: pod.metadata.generation,
        qos_class: Some(QosClass::of(pod).as_str().to_owned()),
        start_time: start_time(facts),
        ..PodStatus::default()
    }
}

fn start_time(facts: Facts<'_>) -> Option<Time> {
    facts
        .before
        .start_time
        .clone()
        .or_else(|| Some(time_of_millis(facts.now)))
}

fn addresses(pod: &Pod, facts: Facts<'_>, phase: &str) -> Vec<String> {
    if host_network(pod) {
        let up = !facts.runtime.sandboxes.is_empty();
        return if up {
            vec![facts.host_ip.to_owned()]
        } else {
            Vec::new()
        };
    }
    let now = facts.runtime.ips();
    if now.is_empty() && matches!(phase, "Succeeded" | "Failed") {
        // A finished pod keeps the address it had.
        let before = facts.before.pod_ips.iter().flatten();
        return before.map(|ip| ip.ip.clone()).collect();
    }
    now.to_vec()
}

fn container_status(
    pod: &Pod,
    container: &Container,
    init: bool,
    facts: Facts<'_>,
) -> ContainerStatus {
    let records: Vec<&ContainerRecord> = facts
        .runtime
        .containers
        .iter()
        .filter(|r| r.name == container.name)
        .collect();
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let Some(record) = records.first() else {
        lost_or_new(pod, container, init, facts, &mut status);
        return status;
    };
    status.container_id = Some(container_id(facts, record));
    status.image.clone_from(&record.image);
    status.image_id.clone_from(&record.image_ref);
    status.restart_count = i32::try_from(record.attempt).unwrap_or(i32::MAX);
    let last = records
        .iter()
        .skip(1)
        .find(|r| r.state == runtime::ContainerState::Exited)
        .map(|r| terminated(facts, r));
    status.last_state = Some(last.unwrap_or_default());
    let wait = facts.waiting.get(&container.name);
    let state = state_of(record, facts);
    match wait {
        // The next instance is wanted but something holds it up.
        Some(wait) if state.running.is_none() && *facts.phase == Phase::Syncing => {
            if state.terminated.is_some() {
                status.last_state = Some(state);
            }
            status.state = Some(waiting(&wait.reason, &wait.message));
        }
        _ => status.state = Some(state),
    }
    let up = has_started(container, record, facts.probes);
    status.started = Some(up);
    status.ready = if init && !is_sidecar(container) {
        let state = status.state.as_ref().and_then(|s| s.terminated.as_ref());
        state.is_some_and(|t| t.exit_code == 0)
    } else {
        up && (container.readiness_probe.is_none()
            || facts.probes.get(&record.id, Kind::Readiness) == Some(true))
    };
    status
}

/// No record of the container: it was never made, or its record is gone.
fn lost_or_new(
    pod: &Pod,
    container: &Container,
    init: bool,
    facts: Facts<'_>,
    status: &mut ContainerStatus,
) {
    let before = facts
        .before
        .container_statuses
        .iter()
        .chain(&facts.before.init_container_statuses)
        .flatten()
        .find(|s| s.name == container.name);
    let state = before.and_then(|s| s.state.as_ref());
    let ending = !matches!(facts.phase, Phase::Syncing);
    if let Some(before) = before
        && state.is_some_and(|s| s.terminated.is_some())
        && (ending || init)
    {
        *status = before.clone();
        return;
    }
    if let Some(before) = before
        && ending
        && state.is_some_and(|s| s.running.is_some())
    {
        *status = before.clone();
        status.ready = false;
        status.started = Some(false);
        status.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some(
                    "The container could not be located when the pod was terminated".into(),
                ),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
        return;
    }
    status.last_state = Some(ContainerState::default());
    status.state = Some(match facts.waiting.get(&container.name) {
        Some(wait) => waiting(&wait.reason, &wait.message),
        None if !init_containers(pod).is_empty() => waiting("PodInitializing", ""),
        None => waiting("ContainerCreating", ""),
    });
}

fn state_of(record: &ContainerRecord, facts: Facts<'_>) -> ContainerState {
    match record.state {
        runtime::ContainerState::Created => waiting("ContainerCreating", ""),
        runtime::ContainerState::Running | runtime::ContainerState::Unknown => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: time_of_nanos(record.started_at),
            }),
            ..ContainerState::default()
        },
        runtime::ContainerState::Exited => terminated(facts, record),
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(facts: Facts<'_>, record: &ContainerRecord) -> ContainerState {
    let reason = match (record.reason.as_str(), record.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(facts, record)),
            exit_code: record.exit_code,
            finished_at: time_of_nanos(record.finished_at),
            started_at: time_of_nanos(record.started_at),
            message: (!record.message.is_empty()).then(|| record.message.clone()),
            reason: Some(reason.to_owned()),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn container_id(facts: Facts<'_>, record: &ContainerRecord) -> String {
    format!("{}://{}", facts.runtime_name, record.id)
}

/// One condition's new value.
struct Verdict {
    kind: &'static str,
    ok: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn new(kind: &'static str, problem: Option<(&'static str, String)>) -> Verdict {
        let (reason, message) = problem.map_or((None, None), |(r, m)| (Some(r), Some(m)));
        Verdict {
            kind,
            ok: reason.is_none(),
            reason,
            message: message.filter(|m| !m.is_empty()),
        }
    }
}

fn conditions(
    pod: &Pod,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
    phase: &str,
    facts: Facts<'_>,
) -> Vec<PodCondition> {
    let unready = containers_problem(pod, init, app, phase);
    let gates = unready.clone().or_else(|| gates_problem(pod, facts.before));
    let sandbox = match facts.runtime.ready_sandbox() {
        Some(s) if host_network(pod) || !s.ips.is_empty() => None,
        _ => Some(("", String::new())),
    };
    let mut verdicts = vec![
        Verdict::new("PodReadyToStartContainers", sandbox),
        Verdict::new("Initialized", init_problem(pod, init, phase)),
        Verdict::new("Ready", gates),
        Verdict::new("ContainersReady", unready),
        Verdict::new("PodScheduled", None),
    ];
    if let Some(Reason::Evicted(why)) = facts.phase.reason() {
        verdicts.push(Verdict {
            kind: "DisruptionTarget",
            ok: true,
            reason: Some("TerminationByKubelet"),
            message: Some(why.message.clone()),
        });
    }
    let before = || facts.before.conditions.iter().flatten();
    let mut conditions: Vec<_> = verdicts
        .iter()
        .map(|v| condition(v, before().find(|c| c.type_ == v.kind), pod, facts.now))
        .collect();
    // Conditions of others (readiness gates, disruption) are theirs to change.
    conditions.extend(
        before()
            .filter(|c| !verdicts.iter().any(|v| v.kind == c.type_))
            .cloned(),
    );
    conditions
}

fn condition(
    verdict: &Verdict,
    before: Option<&PodCondition>,
    pod: &Pod,
    now: i64,
) -> PodCondition {
    let status = if verdict.ok { "True" } else { "False" };
    let since = before
        .filter(|c| c.status == status)
        .and_then(|c| c.last_transition_time.clone())
        .unwrap_or_else(|| time_of_millis(now));
    PodCondition {
        type_: verdict.kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.filter(|r| !r.is_empty()).map(str::to_owned),
        message: verdict.message.clone(),
        last_transition_time: Some(since),
        observed_generation: pod.metadata.generation,
        last_probe_time: None,
    }
}

fn init_problem(
    pod: &Pod,
    init: &[ContainerStatus],
    phase: &str,
) -> Option<(&'static str, String)> {
    if phase == "Succeeded" {
        return None;
    }
    let incomplete: Vec<_> = init_containers(pod)
        .iter()
        .filter(|c| {
            let status = init.iter().find(|s| s.name == c.name);
            match status {
                Some(s) if is_sidecar(c) => s.started != Some(true),
                Some(s) => !s.ready,
                None => true,
            }
        })
        .map(|c| c.name.as_str())
        .collect();
    (!incomplete.is_empty()).then(|| {
        let message = format!(
            "containers with incomplete status: [{}]",
            incomplete.join(" ")
        );
        ("ContainersNotInitialized", message)
    })
}

fn containers_problem(
    pod: &Pod,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
    phase: &str,
) -> Option<(&'static str, String)> {
    match phase {
        "Succeeded" => return Some(("PodCompleted", String::new())),
        "Failed" => return Some(("PodFailed", String::new())),
        _ => {}
    }
    let sidecars = init_containers(pod).iter().filter(|c| is_sidecar(c));
    let unready: Vec<_> = sidecars
        .chain(containers(pod))
        .filter(|c| {
            let status = init.iter().chain(app).find(|s| s.name == c.name);
            !status.is_some_and(|s| s.ready)
        })
        .map(|c| c.name.as_str())
        .collect();
    (!unready.is_empty()).then(|| {
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        ("ContainersNotReady", message)
    })
}

fn gates_problem(pod: &Pod, before: &PodStatus) -> Option<(&'static str, String)> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let problems: Vec<_> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            let mut all = before.conditions.iter().flatten();
            match all.find(|c| c.type_ == *kind) {
                Some(c) if c.status == "True" => None,
                Some(_) => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but False"
                )),
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                )),
            }
        })
        .collect();
    (!problems.is_empty()).then(|| ("ReadinessGatesNotReady", problems.join(", ")))
}

#[cfg(test)]
mod tests;
