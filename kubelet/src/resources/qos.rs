//! QoS class of a pod, and the numbers that follow from it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity::{milli_of, value_of};
use crate::pod::{containers, init_containers, is_sidecar};

/// CFS period, microseconds.
pub const CPU_PERIOD: i64 = 100_000;
/// Smallest CFS quota the kernel takes, microseconds.
const MIN_QUOTA: i64 = 1_000;
/// Smallest value of cpu.shares.
const MIN_SHARES: i64 = 2;

/// `status.qosClass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has equal requests and limits for CPU and memory.
    Guaranteed,
    /// Some container has a request or limit.
    Burstable,
    /// None has.
    BestEffort,
}

impl QosClass {
    /// The class of a pod; only CPU and memory count.
    #[must_use]
    pub fn of(pod: &Pod) -> QosClass {
        let all = || init_containers(pod).iter().chain(containers(pod));
        let asks = |c: &Container| {
            ["cpu", "memory"]
                .iter()
                .any(|r| milli_of(requests(c), r) > 0 || milli_of(limits(c), r) > 0)
        };
        if !all().any(asks) {
            return QosClass::BestEffort;
        }
        let equal = |c: &Container| {
            ["cpu", "memory"].iter().all(|r| {
                let limit = milli_of(limits(c), r);
                limit > 0 && request_or_limit(c, r) == limit
            })
        };
        if all().all(equal) {
            QosClass::Guaranteed
        } else {
            QosClass::Burstable
        }
    }

    /// The text of `status.qosClass`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// `resources.requests` of a container.
#[must_use]
pub fn requests(c: &Container) -> Option<&BTreeMap<String, Quantity>> {
    c.resources.as_ref()?.requests.as_ref()
}

/// `resources.limits` of a container.
#[must_use]
pub fn limits(c: &Container) -> Option<&BTreeMap<String, Quantity>> {
    c.resources.as_ref()?.limits.as_ref()
}

/// A request in thousandths; an absent request equals the limit, as the API defaults it.
#[must_use]
pub fn request_or_limit(c: &Container, resource: &str) -> i64 {
    if requests(c).is_some_and(|r| r.contains_key(resource)) {
        milli_of(requests(c), resource)
    } else {
        milli_of(limits(c), resource)
    }
}

/// What the pod asks of `resource`, in thousandths, init containers and sidecars counted
/// as KEP-753 says: `max(max_i(sidecars before i + init_i), sidecars + containers)`, plus
/// the overhead.
#[must_use]
pub fn pod_request(pod: &Pod, resource: &str) -> i64 {
    pod_total(pod, resource, &|c| request_or_limit(c, resource))
}

fn pod_total(pod: &Pod, resource: &str, amount: &dyn Fn(&Container) -> i64) -> i64 {
    let (mut sidecars, mut peak) = (0, 0);
    for c in init_containers(pod) {
        if is_sidecar(c) {
            sidecars += amount(c);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + amount(c));
        }
    }
    let steady: i64 = sidecars + containers(pod).iter().map(amount).sum::<i64>();
    let overhead = pod.spec.as_ref().and_then(|s| s.overhead.as_ref());
    peak.max(steady) + milli_of(overhead, resource)
}

/// The pod's limit of `resource` in thousandths; `None` unless every container has one.
#[must_use]
pub fn pod_limit(pod: &Pod, resource: &str) -> Option<i64> {
    let all = || init_containers(pod).iter().chain(containers(pod));
    let limited = all().all(|c| milli_of(limits(c), resource) > 0);
    limited.then(|| pod_total(pod, resource, &|c| milli_of(limits(c), resource)))
}

/// `cpu.shares` of a request in millicores.
#[must_use]
pub fn cpu_shares(millicores: i64) -> i64 {
    (millicores * 1024 / 1000).clamp(MIN_SHARES, 262_144)
}

/// CFS quota in microseconds per `CPU_PERIOD`; 0 means unlimited.
#[must_use]
pub fn cpu_quota(millicores: i64) -> i64 {
    if millicores <= 0 {
        return 0;
    }
    (millicores * CPU_PERIOD / 1000).max(MIN_QUOTA)
}

/// `cpu.weight` of `cpu.shares`, by the one formula used at every level:
/// `ceil(10^((L² + 125·L)/612 − 7/34))` with L = log2(shares).
#[must_use]
pub fn cpu_weight(shares: i64) -> u64 {
    match shares {
        ..=0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        shares => {
            #[expect(clippy::cast_precision_loss, reason = "shares are below 2^18")]
            let l = (shares as f64).log2();
            let weight = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000 by the formula's range"
            )]
            let weight = weight as u64;
            weight.clamp(1, 10_000)
        }
    }
}

/// `oom_score_adj` of a container; `capacity` is the node's memory in bytes.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, capacity: i64) -> i64 {
    let critical = pod
        .spec
        .as_ref()
        .and_then(|s| s.priority)
        .is_some_and(|p| p >= 2_000_001_000);
    if critical {
        return -997;
    }
    let burstable = |memory: i64| (1000 - 1000 * memory / capacity.max(1)).clamp(3, 999);
    match QosClass::of(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let own = burstable(memory_request(container));
            if is_sidecar(container) {
                let apps = containers(pod).iter().map(|c| burstable(memory_request(c)));
                own.min(apps.min().unwrap_or(own))
            } else {
                own
            }
        }
    }
}

fn memory_request(c: &Container) -> i64 {
    match value_of(requests(c), "memory") {
        0 => value_of(limits(c), "memory"),
        bytes => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn with(resources: &str) -> Pod {
        pod(&format!(
            "{{containers: [{{name: c, image: i, resources: {resources}}}]}}"
        ))
    }

    #[test]
    fn classes() {
        for (resources, class) in [
            ("{}", QosClass::BestEffort),
            ("{requests: {cpu: 1}}", QosClass::Burstable),
            ("{limits: {cpu: 1}}", QosClass::Burstable),
            ("{limits: {cpu: 1, memory: 1Gi}}", QosClass::Guaranteed),
            (
                "{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}",
                QosClass::Guaranteed,
            ),
            (
                "{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}",
                QosClass::Burstable,
            ),
        ] {
            assert_eq!(
                QosClass::of(&with(
                    &resources.replace("1,", "'1',").replace(": 1}", ": '1'}")
                )),
                class,
                "{resources}"
            );
        }
    }

    #[test]
    fn weights_follow_the_published_vectors() {
        for (millicores, weight) in [
            (10, 4),
            (100, 17),
            (250, 35),
            (500, 59),
            (1000, 100),
            (2000, 174),
            (4000, 303),
            (8000, 532),
            (16000, 942),
            (32000, 1681),
            (64000, 3023),
        ] {
            assert_eq!(cpu_weight(cpu_shares(millicores)), weight, "{millicores}m");
        }
        assert_eq!(cpu_weight(2), 1);
        assert_eq!(cpu_weight(262_144), 10_000);
    }

    #[test]
    fn quota_and_shares() {
        assert_eq!(cpu_quota(0), 0);
        assert_eq!(cpu_quota(1), 1_000);
        assert_eq!(cpu_quota(500), 50_000);
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(1000), 1024);
    }

    #[test]
    fn init_containers_and_sidecars_count_by_peak() {
        let pod = pod("
            initContainers:
            - {name: a, image: i, resources: {requests: {cpu: 500m}}}
            - {name: s, image: i, restartPolicy: Always, resources: {requests: {cpu: 100m}}}
            - {name: b, image: i, resources: {requests: {cpu: 800m}}}
            containers:
            - {name: c, image: i, resources: {requests: {cpu: 200m}}}");
        assert_eq!(pod_request(&pod, "cpu"), 900);
        assert_eq!(pod_limit(&pod, "cpu"), None);
    }

    #[test]
    fn oom_scores() {
        const GIB: i64 = 1 << 30;
        let score = |p: &Pod| oom_score_adj(p, &containers(p)[0], 4 * GIB);
        assert_eq!(score(&with("{}")), 1000);
        assert_eq!(score(&with("{limits: {cpu: '1', memory: 1Gi}}")), -997);
        assert_eq!(score(&with("{requests: {memory: 1Gi}}")), 750);
        assert_eq!(score(&with("{requests: {memory: 5Gi}}")), 3);
        assert_eq!(score(&with("{requests: {memory: 1Ki}}")), 999);
    }
}
