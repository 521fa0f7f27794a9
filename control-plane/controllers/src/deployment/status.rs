//! The status of a Deployment from its ReplicaSets. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::rollout;

/// What stands in `status`.
pub(super) fn compute(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    current: Option<&str>,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |count: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(count).sum::<i32>();
    let status = |s: &ReplicaSet| s.status.clone().unwrap_or_default();
    let is_current = |s: &ReplicaSet| s.metadata.uid.as_deref() == current && current.is_some();
    let replicas = sum(&|s| status(s).replicas);
    let available = sum(&|s| status(s).available_replicas.unwrap_or_default());
    let updated = sum(&|s| if is_current(s) { status(s).replicas } else { 0 });
    let asked = sum(&rollout::wanted);
    let positive = |n: i32| (n > 0).then_some(n);
    let previous = deployment.status.clone().unwrap_or_default();
    let mut next = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(replicas),
        updated_replicas: positive(updated),
        ready_replicas: positive(sum(&|s| status(s).ready_replicas.unwrap_or_default())),
        available_replicas: positive(available),
        unavailable_replicas: positive(
            asked
                .max(rollout::desired(deployment))
                .min(asked.max(replicas))
                - available,
        )
        .filter(|_| asked > available),
        collision_count: previous.collision_count,
        conditions: previous.conditions.clone(),
        ..previous.clone()
    };
    let available_condition = availability(deployment, available);
    let progressing = progress(deployment, sets, current, &next, now);
    let failure = failure(sets);
    let kept = previous.conditions.unwrap_or_default();
    let conditions: Vec<DeploymentCondition> = [Some(available_condition), progressing, failure]
        .into_iter()
        .flatten()
        .map(|condition| dated(condition, &kept, now))
        .collect();
    next.conditions = Some(conditions);
    next
}

fn condition(kind: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: None,
        last_update_time: None,
    }
}

/// Keeps the times of a condition that did not change.
fn dated(
    mut new: DeploymentCondition,
    held: &[DeploymentCondition],
    now: Timestamp,
) -> DeploymentCondition {
    let before = held.iter().find(|c| c.type_ == new.type_);
    let same = before
        .filter(|b| b.status == new.status && b.reason == new.reason && b.message == new.message);
    let same_status = before.filter(|b| b.status == new.status);
    if new.last_update_time.is_none() {
        new.last_update_time = same
            .and_then(|b| b.last_update_time.clone())
            .or(Some(Time(now)));
    }
    new.last_transition_time = same_status
        .and_then(|b| b.last_transition_time.clone())
        .or(Some(Time(now)));
    new
}

fn availability(deployment: &Deployment, available: i32) -> DeploymentCondition {
    let least = rollout::desired(deployment) - rollout::limits(deployment).unavailable;
    if available >= least {
        condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".into(),
        )
    } else {
        condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".into(),
        )
    }
}

/// Progressing is renewed (`lastUpdateTime`) whenever the counts moved; a rollout
/// that does not move for `progressDeadlineSeconds` has failed.
fn progress(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    current: Option<&str>,
    next: &DeploymentStatus,
    now: Timestamp,
) -> Option<DeploymentCondition> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let previous = deployment.status.clone().unwrap_or_default();
    let held = previous
        .conditions
        .as_ref()
        .and_then(|list| list.iter().find(|c| c.type_ == "Progressing").cloned());
    if spec.paused.unwrap_or(false) {
        return Some(condition(
            "Progressing",
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused".into(),
        ));
    }
    let set = sets.iter().find(|s| s.metadata.uid.as_deref() == current)?;
    let name = set.name_any();
    if rollout::is_complete(deployment, sets, current) {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        return Some(condition(
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            message,
        ));
    }
    let moved = next.updated_replicas != previous.updated_replicas
        || next.ready_replicas != previous.ready_replicas
        || next.available_replicas != previous.available_replicas
        || next.replicas != previous.replicas
        || previous.observed_generation != next.observed_generation;
    let message = format!("ReplicaSet \"{name}\" is progressing.");
    let mut updated = condition("Progressing", "True", "ReplicaSetUpdated", message);
    let Some(held) = held else {
        let message = format!("Created new replica set \"{name}\"");
        return Some(condition(
            "Progressing",
            "True",
            "NewReplicaSetCreated",
            message,
        ));
    };
    if moved {
        updated.last_update_time = Some(Time(now));
        return Some(updated);
    }
    if held.reason.as_deref() == Some("NewReplicaSetAvailable") {
        // Complete before, and not now: a pod was lost. That is no failed rollout.
        return Some(held);
    }
    let since = held.last_update_time.as_ref().map_or(now, |t| t.0);
    let limit = SignedDuration::from_secs(spec.progress_deadline_seconds.unwrap_or(600).into());
    if now.duration_since(since) > limit {
        let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
        return Some(condition(
            "Progressing",
            "False",
            "ProgressDeadlineExceeded",
            message,
        ));
    }
    Some(held)
}

fn failure(sets: &[ReplicaSet]) -> Option<DeploymentCondition> {
    let failed = sets
        .iter()
        .filter_map(|s| s.status.as_ref()?.conditions.as_ref())
        .flatten()
        .find(|c| c.type_ == "ReplicaFailure")?;
    Some(condition(
        "ReplicaFailure",
        &failed.status,
        failed.reason.as_deref().unwrap_or_default(),
        failed.message.clone().unwrap_or_default(),
    ))
}

/// How long until the rollout has missed its deadline.
pub(super) fn deadline_in(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let progressing = status
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == "Progressing")?;
    let settled = matches!(
        progressing.reason.as_deref(),
        Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded" | "DeploymentPaused")
    );
    if settled {
        return None;
    }
    let limit = deployment
        .spec
        .as_ref()?
        .progress_deadline_seconds
        .unwrap_or(600);
    let since = progressing.last_update_time.as_ref()?.0;
    let left = SignedDuration::from_secs(limit.into()) - now.duration_since(since);
    Some(left.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parts(available: i32) -> (Deployment, ReplicaSet) {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 2},
            "spec": {"replicas": 2, "selector": {}, "template": {}, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
        }))
        .unwrap();
        let set = serde_json::from_value(json!({
            "metadata": {"name": "d-1", "uid": "u", "generation": 1},
            "spec": {"replicas": 2, "selector": {}},
            "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1},
        }))
        .unwrap();
        (deployment, set)
    }

    #[test]
    fn a_finished_rollout_says_so() {
        let (deployment, set) = parts(2);
        let status = compute(&deployment, &[set], Some("u"), Timestamp::UNIX_EPOCH);
        let reasons: Vec<_> = status
            .conditions
            .unwrap()
            .iter()
            .map(|c| c.reason.clone().unwrap())
            .collect();
        assert_eq!(
            reasons,
            ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]
        );
        assert_eq!(
            (status.available_replicas, status.unavailable_replicas),
            (Some(2), None)
        );
    }

    #[test]
    fn an_unavailable_one_counts_what_is_missing() {
        let (deployment, set) = parts(0);
        let status = compute(&deployment, &[set], Some("u"), Timestamp::UNIX_EPOCH);
        assert_eq!(
            (status.available_replicas, status.unavailable_replicas),
            (None, Some(2))
        );
        assert_eq!(status.conditions.unwrap()[0].status, "False");
    }

    #[test]
    fn a_rollout_that_does_not_move_misses_its_deadline() {
        let (mut deployment, set) = parts(0);
        let start = Timestamp::UNIX_EPOCH;
        deployment.status = Some(compute(
            &deployment,
            std::slice::from_ref(&set),
            Some("u"),
            start,
        ));
        let later = start.checked_add(SignedDuration::from_secs(601)).unwrap();
        let status = compute(&deployment, &[set], Some("u"), later);
        assert_eq!(
            status.conditions.unwrap()[1].reason.as_deref(),
            Some("ProgressDeadlineExceeded")
        );
    }
}
