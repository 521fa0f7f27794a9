//! What the runtime has of one pod: its sandboxes and containers, newest first.

use std::collections::HashMap;

use berth_proto::cri::{self as v1};

use super::PodUid;
use crate::cri::{Cri, CriError};

/// CRI label with the pod's name.
pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
/// CRI label with the pod's namespace.
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// CRI label with the pod's UID.
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
/// CRI label with the container's name in the pod.
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// CRI annotation with the hash of the container's spec.
pub const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";
/// CRI annotation with the restart count.
pub const ANNOTATION_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// CRI annotation with the path of the termination message in the container.
pub const ANNOTATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// CRI annotation with the policy of the termination message.
pub const ANNOTATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// CRI annotation with the pod's grace period, for a kubelet that lost the pod.
pub const ANNOTATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// One observation of a pod at the runtime.
///
/// Invariant: both lists are sorted newest first (attempt, then creation time).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodRuntime {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Containers of all sandboxes, newest first.
    pub containers: Vec<ContainerRecord>,
}

/// One sandbox.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sandbox {
    /// CRI id.
    pub id: String,
    /// How many sandboxes the pod had before this one.
    pub attempt: u32,
    /// SANDBOX_READY.
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Pod addresses, the primary first; empty with the host's network.
    pub ips: Vec<String>,
}

/// State of a container as CRI says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerState {
    /// Created, not started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Ended, with an exit code.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// One container, running or ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerRecord {
    /// CRI id.
    pub id: String,
    /// Name in the pod's spec.
    pub name: String,
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// Restarts before this one.
    pub attempt: u32,
    /// State as CRI says it.
    pub state: ContainerState,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Nanoseconds since the epoch; 0 when not started.
    pub started_at: i64,
    /// Nanoseconds since the epoch; 0 while it runs.
    pub finished_at: i64,
    /// Exit code, once exited.
    pub exit_code: i32,
    /// The runtime's reason (`OOMKilled`, `Completed`, `Error`, …).
    pub reason: String,
    /// The runtime's message.
    pub message: String,
    /// The image as the spec names it.
    pub image: String,
    /// The image's reference on this node, digest form where there is one.
    pub image_ref: String,
    /// Hash of the container's spec when it was created.
    pub hash: String,
    /// Where its log is.
    pub log_path: String,
    /// Host path of the termination message file; empty when there is none.
    pub message_host_path: String,
    /// Policy of the termination message.
    pub message_policy: String,
}

impl PodRuntime {
    /// Reads a pod's sandboxes and containers from the runtime.
    ///
    /// # Errors
    /// Any CRI call that fails; an object that vanishes in between is left out.
    pub async fn observe(cri: &Cri, uid: &PodUid) -> Result<PodRuntime, CriError> {
        let labels = HashMap::from([(LABEL_POD_UID.to_owned(), uid.as_str().to_owned())]);
        let mut seen = PodRuntime::default();
        for listed in cri.list_pod_sandboxes(labels.clone()).await? {
            match cri.pod_sandbox_status(&listed.id).await {
                Ok(status) => seen.sandboxes.push(Sandbox::from(status)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        for listed in cri.list_containers(labels).await? {
            match cri.container_status(&listed.id).await {
                Ok(status) => seen
                    .containers
                    .push(ContainerRecord::new(status, listed.pod_sandbox_id)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        seen.sort();
        Ok(seen)
    }

    fn sort(&mut self) {
        self.sandboxes
            .sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        self.containers
            .sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    }

    /// The newest sandbox, when it is ready.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The newest container called `name`, of whatever sandbox.
    #[must_use]
    pub fn latest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container called `name` in one sandbox.
    #[must_use]
    pub fn latest_in(&self, sandbox: &str, name: &str) -> Option<&ContainerRecord> {
        self.containers
            .iter()
            .find(|c| c.name == name && c.sandbox_id == sandbox)
    }

    /// Containers that run, or may run for all the runtime can tell.
    pub fn running(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.containers
            .iter()
            .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
    }

    /// The pod's addresses, the primary first.
    #[must_use]
    pub fn ips(&self) -> &[String] {
        self.ready_sandbox()
            .map(|s| s.ips.as_slice())
            .unwrap_or_default()
    }
}

impl From<v1::PodSandboxStatus> for Sandbox {
    fn from(status: v1::PodSandboxStatus) -> Sandbox {
        let ready = status.state() == v1::PodSandboxState::SandboxReady;
        let network = status.network.unwrap_or_default();
        let ips = std::iter::once(network.ip)
            .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
            .filter(|ip| !ip.is_empty())
            .collect();
        Sandbox {
            ready,
            id: status.id,
            attempt: status.metadata.unwrap_or_default().attempt,
            created_at: status.created_at,
            ips,
        }
    }
}

impl ContainerRecord {
    /// The record of one container's CRI status.
    #[must_use]
    pub fn new(mut status: v1::ContainerStatus, sandbox_id: String) -> ContainerRecord {
        let state = match status.state() {
            v1::ContainerState::ContainerCreated => ContainerState::Created,
            v1::ContainerState::ContainerRunning => ContainerState::Running,
            v1::ContainerState::ContainerExited => ContainerState::Exited,
            v1::ContainerState::ContainerUnknown => ContainerState::Unknown,
        };
        let metadata = status.metadata.unwrap_or_default();
        let mut annotation = |key: &str| status.annotations.remove(key).unwrap_or_default();
        let message_path = annotation(ANNOTATION_MESSAGE_PATH);
        let message_host_path = status
            .mounts
            .iter()
            .find(|m| !message_path.is_empty() && m.container_path == message_path)
            .map(|m| m.host_path.clone())
            .unwrap_or_default();
        ContainerRecord {
            id: status.id,
            name: metadata.name,
            sandbox_id,
            attempt: metadata.attempt,
            state,
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            reason: status.reason,
            message: status.message,
            image: status.image.map(|i| i.image).unwrap_or_default(),
            image_ref: status.image_ref,
            hash: annotation(ANNOTATION_HASH),
            message_policy: annotation(ANNOTATION_MESSAGE_POLICY),
            message_host_path,
            log_path: status.log_path,
        }
    }
}
