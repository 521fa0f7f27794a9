//! Pods on this node: what is wanted, what is running, and how the one becomes the other.

pub mod actions;
pub mod admit;
pub mod backoff;
pub mod cri_config;
pub mod dns;
pub mod env;
pub mod execute;
pub mod expand;
pub mod field;
pub mod hooks;
pub mod hosts;
pub mod kill;
pub mod lifecycle;
mod phase;
pub mod prune;
pub mod runtime;
pub mod security;
pub mod status;
pub mod store;
pub mod termination;
pub mod unsupported;
pub mod worker;

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// A pod's UID: the identity of one incarnation of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(String);

impl PodUid {
    /// The UID in `metadata.uid`; `None` when the pod has none.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<PodUid> {
        pod.metadata.uid.clone().map(PodUid)
    }

    /// The UID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for PodUid {
    fn from(uid: String) -> PodUid {
        PodUid(uid)
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `metadata.name`, empty when absent.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`, `default` when absent.
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `metadata.uid`, empty when absent.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `namespace/name`, for people.
#[must_use]
pub fn key(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}

/// The annotation `key`.
#[must_use]
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata
        .annotations
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

/// The spec; every pod the kubelet takes has one (`source` refuses others).
#[must_use]
pub fn spec(pod: &Pod) -> PodSpec {
    pod.spec.clone().unwrap_or_default()
}

/// The init containers, in order.
#[must_use]
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .and_then(|s| s.init_containers.as_deref())
        .unwrap_or_default()
}

/// The app containers.
#[must_use]
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .map(|s| s.containers.as_slice())
        .unwrap_or_default()
}

/// The container called `name`, init or app.
#[must_use]
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    init_containers(pod)
        .iter()
        .chain(containers(pod))
        .find(|c| c.name == name)
}

/// An init container that keeps running beside the app containers (KEP-753).
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// Unless the exit code is 0.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// The pod's policy; `Always` is the default.
    #[must_use]
    pub fn of(pod: &Pod) -> RestartPolicy {
        match pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            _ => RestartPolicy::Always,
        }
    }
}

/// `spec.hostNetwork`.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

/// Seconds between the stop signal and SIGKILL; 30 when the pod names none.
#[must_use]
pub fn grace_period(pod: &Pod) -> i64 {
    pod.spec
        .as_ref()
        .and_then(|s| s.termination_grace_period_seconds)
        .unwrap_or(30)
}

/// Mark of a mirror pod: the API object that stands for a static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Where the pod came from: `file` or `api`.
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Hash of a static pod's manifest.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";

/// The pod is defined by a file of this node.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE_ANNOTATION).is_some_and(|s| s != "api")
        && annotation(pod, MIRROR_ANNOTATION).is_none()
}

/// The pod object stands for a static pod.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR_ANNOTATION).is_some()
}

/// Priorities from here on are critical (`system-cluster-critical`).
const CRITICAL: i32 = 2_000_000_000;

/// A pod that the node needs itself: static, a mirror, or of a critical priority. It is not
/// evicted, and taken although the node runs short.
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    is_static(pod) || is_mirror(pod) || priority >= CRITICAL
}
