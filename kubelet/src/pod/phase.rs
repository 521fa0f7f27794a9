//! The phase of a pod, from its containers' statuses and its restart policy.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::{RestartPolicy, containers, init_containers, is_sidecar};

/// How the containers of a pod stand, counted.
#[derive(Debug, Default)]
struct Count {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

/// `status.phase`. `ending`: the pod is being, or was, stopped for good.
#[must_use]
pub fn phase_of(
    pod: &Pod,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
    ending: bool,
) -> &'static str {
    let policy = RestartPolicy::of(pod);
    let (init_pending, init_failed) = count_init(pod, init);
    if init_failed > 0 && policy == RestartPolicy::Never {
        return "Failed";
    }
    let count = count_apps(pod, app);
    let untouched = count.running + count.stopped == 0;
    if init_pending > 0 && untouched && !ending {
        return "Pending";
    }
    if count.waiting > 0 && !ending {
        return "Pending";
    }
    if count.running > 0 {
        return "Running";
    }
    let all_succeeded = count.stopped == count.succeeded && count.waiting == 0;
    match policy {
        _ if ending && count.stopped > 0 => {
            if all_succeeded {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        _ if ending && count.waiting > 0 => "Failed",
        _ if count.stopped == 0 => "Pending",
        RestartPolicy::Always => "Running",
        RestartPolicy::Never | RestartPolicy::OnFailure if all_succeeded => "Succeeded",
        RestartPolicy::Never => "Failed",
        RestartPolicy::OnFailure => "Running",
    }
}

/// Init containers not done yet, and those that failed for good.
fn count_init(pod: &Pod, statuses: &[ContainerStatus]) -> (usize, usize) {
    let (mut pending, mut failed) = (0, 0);
    for container in init_containers(pod) {
        let status = statuses.iter().find(|s| s.name == container.name);
        let state = status.and_then(|s| s.state.as_ref());
        if is_sidecar(container) {
            if status.and_then(|s| s.started) != Some(true) {
                pending += 1;
            }
            continue;
        }
        match state.and_then(|s| s.terminated.as_ref()) {
            Some(t) if t.exit_code == 0 => {}
            Some(_) => {
                failed += 1;
                pending += 1;
            }
            None => pending += 1,
        }
    }
    (pending, failed)
}

fn count_apps(pod: &Pod, statuses: &[ContainerStatus]) -> Count {
    let mut count = Count::default();
    for container in containers(pod) {
        let status = statuses.iter().find(|s| s.name == container.name);
        let state = status.and_then(|s| s.state.as_ref());
        let last = status
            .and_then(|s| s.last_state.as_ref())
            .and_then(|s| s.terminated.as_ref());
        match state {
            Some(ContainerState {
                running: Some(_), ..
            }) => count.running += 1,
            Some(ContainerState {
                terminated: Some(t),
                ..
            }) => {
                count.stopped += 1;
                count.succeeded += usize::from(t.exit_code == 0);
            }
            // Waiting for its restart: it has run, so it counts as stopped.
            _ if last.is_some() => count.stopped += 1,
            _ => count.waiting += 1,
        }
    }
    count
}
