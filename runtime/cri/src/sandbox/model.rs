//! What is known about one pod sandbox.

use std::net::IpAddr;
use std::path::PathBuf;

use berth_cni::{Attachment, NetConfList};
use berth_proto::cri;
use serde::{Deserialize, Serialize};

use crate::id::SandboxId;
use crate::store::Stored;

/// Version of [`SandboxRecord`] as stored.
pub const RECORD_VERSION: u32 = 1;

/// How far a sandbox has come. Stored before the effects the phase names, so that after
/// a crash it tells what may exist.
///
/// ```text
/// Reserved ─▶ Starting ─▶ Networking ─▶ Ready ─▶ Stopping ─▶ Stopped
///     └───────────┴────────────┴── failed: all undone, record gone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// The name is taken; its directory may exist. Retry joins, stop and remove undo.
    Reserved,
    /// The cgroup, the monitor and the namespaces may exist.
    Starting,
    /// Addresses, links and rules may exist too.
    Networking,
    /// Containers can be created.
    Ready,
    /// Parts may be gone already; only stop and remove are accepted.
    Stopping,
    /// Nothing is left but the record and the directory.
    Stopped,
}

/// The cgroup of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCgroup {
    /// Relative to the cgroup2 mount.
    pub path: PathBuf,
    /// Made by this server (no `cgroup_parent` was given), hence removed by it.
    pub owned: bool,
}

impl PodCgroup {
    /// Where the container `id` lives.
    pub fn container(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }
}

/// How a sandbox is attached to the pod network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// The network as it was configured then: DEL must see what ADD saw.
    pub network: NetConfList,
    /// The call.
    pub attachment: Attachment,
    /// The addresses, the first being the pod's main address; empty until ADD is done.
    pub addresses: Vec<IpAddr>,
}

/// One sandbox. A record is never changed, only replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// [`RECORD_VERSION`] of the writer.
    pub version: u32,
    /// The boot in which the sandbox was made.
    pub boot_id: String,
    /// Its identifier.
    pub id: SandboxId,
    /// How far it has come.
    pub phase: Phase,
    /// Nanoseconds since 1970, UTC.
    pub created_at: i64,
    /// The request.
    pub config: cri::PodSandboxConfig,
    /// RuntimeClass handler.
    pub runtime_handler: String,
    /// Its cgroup.
    pub cgroup: PodCgroup,
    /// None: the host's network, or not attached yet.
    pub attached: Option<Attached>,
    /// The process that holds the namespaces; 0 when there is none.
    pub pause_pid: i32,
}

impl Stored for SandboxRecord {
    type Id = SandboxId;
    const NOUN: &'static str = "sandbox";
    const FOLDER: &'static str = "pods";
    const JOURNAL_KIND: &'static str = "sandboxes";

    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn reserved_name(&self) -> String {
        SandboxRecord::name(&self.config)
    }
}

impl SandboxRecord {
    /// The name under which a sandbox is reserved.
    pub fn name(config: &cri::PodSandboxConfig) -> String {
        let metadata = config.metadata.clone().unwrap_or_default();
        let cri::PodSandboxMetadata {
            name,
            uid,
            namespace,
            attempt,
        } = metadata;
        format!("{name}_{namespace}_{uid}_{attempt}")
    }

    /// Which of the pod's namespaces are shared with whom.
    pub fn namespaces(&self) -> cri::NamespaceOption {
        self.security().namespace_options.unwrap_or_default()
    }

    /// The security context, empty when none was given.
    pub fn security(&self) -> cri::LinuxSandboxSecurityContext {
        let linux = self.config.linux.clone().unwrap_or_default();
        linux.security_context.unwrap_or_default()
    }

    /// Where monitor and pause live: no process may sit in the pod's group itself. Two
    /// sandboxes of one pod, the dead and the next, may meet in a parent that was given.
    pub fn leaf_cgroup(&self) -> PathBuf {
        if self.cgroup.owned {
            return self.cgroup.path.join("berth");
        }
        let short: String = self.id.as_str().chars().take(12).collect();
        self.cgroup.path.join(format!("berth-{short}"))
    }

    /// Whether the pod uses the host's network.
    pub fn host_network(&self) -> bool {
        self.namespaces().network() == cri::NamespaceMode::Node
    }

    /// The file of the pod's namespace of `kind` (`net`, `ipc`, `uts`, `pid`).
    pub fn namespace_path(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.pause_pid))
    }

    /// The CRI state: only a complete sandbox is ready.
    pub fn state(&self) -> cri::PodSandboxState {
        match self.phase {
            Phase::Ready => cri::PodSandboxState::SandboxReady,
            Phase::Reserved
            | Phase::Starting
            | Phase::Networking
            | Phase::Stopping
            | Phase::Stopped => cri::PodSandboxState::SandboxNotready,
        }
    }

    /// Whether the sandbox was created as far as a client can tell: one under
    /// construction is not listed.
    pub fn is_created(&self) -> bool {
        self.phase >= Phase::Ready
    }

    /// As ListPodSandbox tells it.
    pub fn to_item(&self) -> cri::PodSandbox {
        cri::PodSandbox {
            id: self.id.to_string(),
            metadata: self.config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    /// As PodSandboxStatus tells it.
    pub fn to_status(&self) -> cri::PodSandboxStatus {
        let options = Some(self.namespaces());
        let namespaces = Some(cri::Namespace { options });
        cri::PodSandboxStatus {
            id: self.id.to_string(),
            metadata: self.config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created_at,
            network: Some(self.network_status()),
            linux: Some(cri::LinuxPodSandboxStatus { namespaces }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    /// No addresses for the host's network (the kubelet uses the node's) and none once
    /// the sandbox is not ready: they may belong to another pod already.
    fn network_status(&self) -> cri::PodSandboxNetworkStatus {
        let ready = self.phase == Phase::Ready;
        let addresses: &[IpAddr] = match &self.attached {
            Some(attached) if ready => &attached.addresses,
            _ => &[],
        };
        let mut texts = addresses.iter().map(ToString::to_string);
        cri::PodSandboxNetworkStatus {
            ip: texts.next().unwrap_or_default(),
            additional_ips: texts.map(|ip| cri::PodIp { ip }).collect(),
        }
    }

    /// As stats name it.
    pub fn to_attributes(&self) -> cri::PodSandboxAttributes {
        cri::PodSandboxAttributes {
            id: self.id.to_string(),
            metadata: self.config.metadata.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

#[cfg(test)]
pub mod testing {
    //! Records for the tests of other modules.
    use super::*;

    /// A ready sandbox named `name`.
    pub fn record(name: &str) -> SandboxRecord {
        let metadata = cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: "u1".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        };
        SandboxRecord {
            version: RECORD_VERSION,
            boot_id: "boot".to_owned(),
            id: SandboxId::random(),
            phase: Phase::Ready,
            created_at: 1,
            config: cri::PodSandboxConfig {
                metadata: Some(metadata),
                hostname: name.to_owned(),
                ..Default::default()
            },
            runtime_handler: String::new(),
            cgroup: PodCgroup {
                path: "pods/p".into(),
                owned: false,
            },
            attached: None,
            pause_pid: 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = testing::record("web");
        let text = serde_json::to_string(&record).unwrap();
        let read: SandboxRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(read.to_status(), record.to_status());
        assert_eq!(SandboxRecord::name(&read.config), "web_default_u1_0");
    }

    #[test]
    fn addresses_are_told_only_while_ready() {
        let mut record = testing::record("web");
        let network = berth_cni::default_network("10.0.0.0/8", "/x".as_ref());
        record.attached = Some(Attached {
            network: serde_json::from_str(&network).unwrap(),
            attachment: Attachment {
                container_id: String::new(),
                netns: None,
                ifname: "eth0".to_owned(),
                args: Vec::new(),
                capabilities: serde_json::Map::new(),
            },
            addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        });
        let network = record.to_status().network.unwrap();
        assert_eq!(network.ip, "10.0.0.2");
        assert_eq!(network.additional_ips[0].ip, "fd00::2");
        record.phase = Phase::Stopped;
        assert_eq!(record.to_status().network.unwrap().ip, "");
    }
}
