//! A pod's row: what kubectl shows under READY, STATUS and RESTARTS.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::age::since;
use super::cells::{completed, list, number, or, text};
use crate::gvk::Resource;
use crate::meta;

/// The `Completed` condition of a finished pod's row.
pub(super) fn row_conditions(resource: &Resource, object: &Value) -> Option<Value> {
    if resource.plural != "pods" {
        return None;
    }
    match text(object, "/status/phase") {
        "Succeeded" => Some(completed(
            "Succeeded",
            "The pod has completed successfully.",
        )),
        "Failed" => Some(completed("Failed", "The pod failed.")),
        _ => None,
    }
}

pub(super) fn cells(pod: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let summary = Summary::of(pod);
    let mut restarts = summary.restarts.to_string();
    if summary.restarts != 0
        && let Some(last) = summary.last_restart
    {
        restarts.push_str(&format!(" ({} ago)", since(&last.into(), now)));
    }
    vec![
        meta::name(pod).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        since(&pod["metadata"]["creationTimestamp"], now).into(),
        or(text(pod, "/status/podIPs/0/ip"), "<none>").into(),
        or(text(pod, "/spec/nodeName"), "<none>").into(),
        or(text(pod, "/status/nominatedNodeName"), "<none>").into(),
        readiness_gates(pod).into(),
    ]
}

/// What the status of all containers adds up to.
struct Summary<'a> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<&'a str>,
}

/// Restarts of some containers, and when the last of them ended before.
#[derive(Default, Clone, Copy)]
struct Restarts<'a> {
    count: i64,
    last: Option<&'a str>,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += number(status, "/restartCount");
        let ended = text(status, "/lastState/terminated/finishedAt");
        if !ended.is_empty() {
            self.last = self.last.max(Some(ended));
        }
    }
}

impl<'a> Summary<'a> {
    fn of(pod: &'a Value) -> Self {
        let sidecars: Vec<&str> = list(pod, "/spec/initContainers")
            .iter()
            .filter(|c| c["restartPolicy"] == "Always")
            .map(|c| text(c, "/name"))
            .collect();
        let mut summary = Summary {
            reason: or(text(pod, "/status/reason"), text(pod, "/status/phase")).to_owned(),
            ready: 0,
            total: list(pod, "/spec/containers").len() + sidecars.len(),
            restarts: 0,
            last_restart: None,
        };
        let gated = |c: &Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
        if list(pod, "/status/conditions").iter().any(gated) {
            summary.reason = "SchedulingGated".to_owned();
        }
        let (initializing, all, of_sidecars) = summary.init_containers(pod, &sidecars);
        let mut restarts = all;
        if !initializing || has_condition(pod, "Initialized") {
            restarts = of_sidecars;
            summary.containers(pod, &mut restarts);
        }
        summary.restarts = restarts.count;
        summary.last_restart = restarts.last;
        if meta::is_deleting(pod) {
            if text(pod, "/status/reason") == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Walks the init containers up to the first that is not done.
    fn init_containers(
        &mut self,
        pod: &'a Value,
        sidecars: &[&str],
    ) -> (bool, Restarts<'a>, Restarts<'a>) {
        let (mut all, mut of_sidecars) = (Restarts::default(), Restarts::default());
        let total = list(pod, "/spec/initContainers").len();
        for (index, status) in list(pod, "/status/initContainerStatuses")
            .iter()
            .enumerate()
        {
            all.add(status);
            let sidecar = sidecars.contains(&text(status, "/name"));
            if sidecar {
                of_sidecars.add(status);
            }
            let terminated = &status["state"]["terminated"];
            if terminated.is_object() && number(terminated, "/exitCode") == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.reason = if terminated.is_object() {
                format!("Init:{}", end_reason(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{total}")
            };
            return (true, all, of_sidecars);
        }
        (false, all, of_sidecars)
    }

    /// Walks the containers from the last, so that the first one's word counts.
    fn containers(&mut self, pod: &'a Value, restarts: &mut Restarts<'a>) {
        let mut running = false;
        let mut failure = String::new();
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            restarts.add(status);
            let state = &status["state"];
            let waiting = text(state, "/waiting/reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if state["terminated"].is_object() {
                self.reason = end_reason(&state["terminated"]);
                if number(state, "/terminated/exitCode") != 0 {
                    failure.clone_from(&self.reason);
                }
            } else if status["ready"] == true && state["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && has_condition(pod, "Ready") {
                self.reason = "Running".to_owned();
            } else if !failure.is_empty() {
                self.reason = failure;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}

fn end_reason(terminated: &Value) -> String {
    let reason = text(terminated, "/reason");
    let signal = number(terminated, "/signal");
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", number(terminated, "/exitCode"))
    }
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    list(pod, "/status/conditions")
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates
        .iter()
        .filter(|gate| has_condition(pod, text(gate, "/conditionType")))
        .count();
    format!("{met}/{}", gates.len())
}
