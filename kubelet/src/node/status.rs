//! The Node's status: resources, conditions, addresses, images.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio::sync::watch;

use super::capacity::Capacity;
use super::machine;
use crate::clock::{now_millis, time_of_millis};
use crate::config::Config;
use crate::cri::Cri;

/// nodeStatusMaxImages.
const MAX_IMAGES: usize = 50;

/// Which resources the node is short of; written by eviction, read here and by admission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// MemoryPressure.
    pub memory: bool,
    /// DiskPressure.
    pub disk: bool,
    /// PIDPressure.
    pub pid: bool,
}

/// What the Node's status is made from; a bundle of cheap handles.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// The kubelet's configuration.
    pub config: Arc<Config>,
    /// The runtime.
    pub cri: Cri,
    /// What the machine has.
    pub capacity: Capacity,
    /// Controllers whose limits are not enforced.
    pub unenforced: Vec<&'static str>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    /// `name://version` of the runtime.
    pub runtime: String,
}

impl NodeContext {
    /// The status now; `before` gives the times of conditions that have not changed.
    pub async fn status(&self, before: &[NodeCondition]) -> NodeStatus {
        let capacity = &self.capacity;
        let allocatable = Capacity {
            cpu_milli: capacity.allocatable_cpu_milli,
            memory: capacity.allocatable_memory,
            ..*capacity
        };
        NodeStatus {
            addresses: Some(vec![
                address("InternalIP", &self.config.node_ip.to_string()),
                address("Hostname", &self.config.node_name),
            ]),
            capacity: Some(resources(capacity)),
            allocatable: Some(resources(&allocatable)),
            conditions: Some(self.conditions(before).await),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint {
                    port: i32::from(self.config.port),
                }),
            }),
            images: Some(self.images().await),
            node_info: Some(machine::system_info(&self.runtime)),
            ..NodeStatus::default()
        }
    }

    async fn images(&self) -> Vec<ContainerImage> {
        // Without an answer the node shows no images; the Ready condition says why.
        let mut images = self.cri.list_images().await.unwrap_or_default();
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        images
            .into_iter()
            .take(MAX_IMAGES)
            .map(|image| ContainerImage {
                names: Some([image.repo_digests, image.repo_tags].concat()),
                size_bytes: i64::try_from(image.size).ok(),
            })
            .collect()
    }

    async fn conditions(&self, before: &[NodeCondition]) -> Vec<NodeCondition> {
        let pressure = *self.pressure.borrow();
        let mut all = vec![
            pressed(
                "MemoryPressure",
                pressure.memory,
                ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
                ("insufficient memory", "sufficient memory"),
            ),
            pressed(
                "DiskPressure",
                pressure.disk,
                ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
                ("disk pressure", "no disk pressure"),
            ),
            pressed(
                "PIDPressure",
                pressure.pid,
                ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
                ("insufficient PID", "sufficient PID"),
            ),
        ];
        if self.unenforced.is_empty() {
            all.push(new(
                "CgroupLimitsEnforced",
                true,
                "CgroupControllersPresent",
                "cgroup v2 enforces the limits of pods",
            ));
        } else {
            let message = format!(
                "limits are not enforced: no {} controller in cgroup v2",
                self.unenforced.join(", ")
            );
            all.push(new(
                "CgroupLimitsEnforced",
                false,
                "CgroupControllersMissing",
                &message,
            ));
        }
        all.push(self.ready().await);
        let now = time_of_millis(now_millis());
        for condition in &mut all {
            let old = before.iter().find(|c| c.type_ == condition.type_);
            let since = old
                .filter(|c| c.status == condition.status)
                .and_then(|c| c.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or_else(|| now.clone()));
            condition.last_heartbeat_time = Some(now.clone());
        }
        all
    }

    async fn ready(&self) -> NodeCondition {
        let status = match self.cri.status().await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) => {
                let message = format!("container runtime is down: {error}");
                return new("Ready", false, "KubeletNotReady", &message);
            }
        };
        let problems: Vec<String> = ["RuntimeReady", "NetworkReady"]
            .iter()
            .filter_map(|kind| {
                let what = if *kind == "NetworkReady" {
                    "container runtime network not ready"
                } else {
                    "container runtime not ready"
                };
                match status.conditions.iter().find(|c| c.r#type == *kind) {
                    Some(c) if c.status => None,
                    Some(c) => Some(format!(
                        "{what}: {kind}=false reason:{} message:{}",
                        c.reason, c.message
                    )),
                    None => Some(format!("{what}: {kind} is not reported")),
                }
            })
            .collect();
        if problems.is_empty() {
            new(
                "Ready",
                true,
                "KubeletReady",
                "kubelet is posting ready status",
            )
        } else {
            new("Ready", false, "KubeletNotReady", &problems.join(", "))
        }
    }
}

fn new(kind: &str, status: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..NodeCondition::default()
    }
}

fn pressed(kind: &str, status: bool, reasons: (&str, &str), words: (&str, &str)) -> NodeCondition {
    let (reason, word) = if status {
        (reasons.0, words.0)
    } else {
        (reasons.1, words.1)
    };
    new(
        kind,
        status,
        reason,
        &format!(
            "kubelet has {word}{}",
            if word.starts_with("sufficient") {
                " available"
            } else {
                ""
            }
        ),
    )
}

fn address(kind: &str, address: &str) -> NodeAddress {
    NodeAddress {
        type_: kind.to_owned(),
        address: address.to_owned(),
    }
}

fn resources(capacity: &Capacity) -> BTreeMap<String, Quantity> {
    let cpu = if capacity.cpu_milli % 1000 == 0 {
        (capacity.cpu_milli / 1000).to_string()
    } else {
        format!("{}m", capacity.cpu_milli)
    };
    [
        ("cpu", cpu),
        ("memory", format!("{}Ki", capacity.memory / 1024)),
        (
            "ephemeral-storage",
            format!("{}Ki", capacity.ephemeral_storage / 1024),
        ),
        ("pods", capacity.pods.to_string()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect()
}
