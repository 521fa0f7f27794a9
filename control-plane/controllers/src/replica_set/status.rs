//! The status of a ReplicaSet from its pods. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::pod_state::{available_at, is_active, is_ready};

/// What stands in `status`; `failure` is why pods could not be made or deleted.
pub(super) fn compute(
    set: &ReplicaSet,
    pods: &[Pod],
    failure: Option<String>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let wanted_labels = spec
        .template
        .and_then(|t| t.metadata?.labels)
        .unwrap_or_default();
    let active: Vec<&Pod> = pods.iter().filter(|pod| is_active(pod)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let labelled = |pod: &Pod| {
        wanted_labels
            .iter()
            .all(|(k, v)| pod.labels().get(k) == Some(v))
    };
    let previous = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: positive(count(&labelled)),
        ready_replicas: positive(count(&is_ready)),
        available_replicas: positive(count(&|pod| {
            available_at(pod, min_ready).is_some_and(|at| at <= now)
        })),
        terminating_replicas: previous.terminating_replicas,
        observed_generation: set.metadata.generation,
        conditions: failure_condition(previous.conditions, failure, now),
    }
}

/// Zero is left out, as the server's own types do.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

fn failure_condition(
    held: Option<Vec<ReplicaSetCondition>>,
    failure: Option<String>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let Some(message) = failure else {
        return held
            .map(|list| {
                list.into_iter()
                    .filter(|c| c.type_ != "ReplicaFailure")
                    .collect::<Vec<_>>()
            })
            .filter(|list| !list.is_empty());
    };
    let standing = held
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "ReplicaFailure");
    Some(vec![ReplicaSetCondition {
        type_: "ReplicaFailure".into(),
        status: "True".into(),
        reason: Some("FailedCreate".into()),
        message: Some(message),
        last_transition_time: standing
            .and_then(|c| c.last_transition_time)
            .or(Some(Time(now))),
    }])
}

/// How long until the next ready pod becomes available (`minReadySeconds`).
pub(super) fn next_available(set: &ReplicaSet, pods: &[Pod], now: Timestamp) -> Option<Duration> {
    let min_ready = set.spec.as_ref()?.min_ready_seconds.unwrap_or_default();
    pods.iter()
        .filter(|pod| is_active(pod))
        .filter_map(|pod| available_at(pod, min_ready))
        .filter(|at| *at > now)
        .min()
        .and_then(|at| at.duration_since(now).try_into().ok())
}
