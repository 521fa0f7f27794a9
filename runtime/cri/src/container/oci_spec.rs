//! From an image configuration and a CRI request to an OCI runtime configuration
//! (runtime-spec 1.2). Pure: whatever must be read from the host comes in [`SpecInput`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use berth_proto::cri;
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use crate::config::CapabilitySet;
use crate::container::model::User;

mod capabilities;
mod mounts;
mod process;
mod resources;
mod seccomp;
mod unsupported;

pub use capabilities::bounding_set;
pub use resources::{limits, merge};
pub use seccomp::SeccompSource;

/// Version of the runtime specification the documents are written for.
const OCI_VERSION: &str = "1.2.0";

/// Everything a container's OCI configuration is made of.
pub struct SpecInput<'a> {
    /// The container's request.
    pub config: &'a cri::ContainerConfig,
    /// The image's configuration.
    pub image: &'a ImageConfiguration,
    /// Who the process is, looked up in the image.
    pub user: &'a User,
    /// Home directory of that user, if the image names one.
    pub home: Option<&'a str>,
    /// The pod.
    pub pod: PodInput<'a>,
    /// The container's cgroup, relative to the cgroup2 mount.
    pub cgroup: &'a Path,
    /// What this host and its configuration allow.
    pub host: &'a HostInput<'a>,
}

/// What the pod gives each of its containers.
pub struct PodInput<'a> {
    /// The sandbox's identifier.
    pub id: &'a str,
    /// The sandbox's request.
    pub config: &'a cri::PodSandboxConfig,
    /// The process holding the pod's namespaces.
    pub pause_pid: i32,
    /// The process whose PID namespace is joined in mode TARGET.
    pub target_pid: Option<i32>,
    /// Directory with the pod's `hostname`, `hosts`, `resolv.conf` and `shm`.
    pub files: &'a Path,
}

/// What this host and its configuration allow.
pub struct HostInput<'a> {
    /// Capabilities of a container that changes none.
    pub default_capabilities: CapabilitySet,
    /// Capabilities this process can hand on at all.
    pub bounding: &'a BTreeSet<String>,
    /// The lowest oom_score_adj that can be set; None when any can.
    pub oom_score_floor: Option<i64>,
    /// Whether the hugetlb controller is there.
    pub hugetlb: bool,
    /// Whether AppArmor is enabled in the kernel.
    pub apparmor: bool,
    /// Reads the profiles of seccomp.
    pub seccomp: &'a dyn SeccompSource,
    /// Device nodes of the host, for privileged containers.
    pub devices: &'a [HostDevice],
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Its path.
    pub path: PathBuf,
    /// `b` or `c`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Why a request cannot be turned into a configuration.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The field is not honoured by this version, or not on this host.
    #[error("{field}: {reason}")]
    Unsupported {
        /// Path of the field in the request.
        field: String,
        /// Why not.
        reason: &'static str,
    },
    /// The field's value makes no sense.
    #[error("{field}: invalid: {reason}")]
    Invalid {
        /// Path of the field in the request.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither request nor image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// A seccomp profile cannot be had.
    #[error("cannot load the seccomp profile `{profile}`")]
    Seccomp {
        /// The profile's path.
        profile: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The OCI configuration, ready to be written as `config.json`.
pub fn build(input: &SpecInput<'_>) -> Result<Value, SpecError> {
    unsupported::refuse(input)?;
    let security = security(input.config);
    let capabilities = capabilities::capabilities(&security, input.host)?;
    let seccomp = seccomp::profile(&security, &capabilities, input.host)?;
    let limits = linux_config(input.config).resources.unwrap_or_default();
    let mut linux = json!({
        "namespaces": namespaces(&security, &input.pod)?,
        "cgroupsPath": format!("/{}", input.cgroup.display()),
        "resources": resources::resources(&limits, security.privileged, input.host),
        "rootfsPropagation": mounts::rootfs_propagation(input.config),
    });
    if security.privileged {
        linux["devices"] = devices(input.host.devices);
    } else {
        linux["maskedPaths"] = json!(security.masked_paths);
        linux["readonlyPaths"] = json!(security.readonly_paths);
    }
    if let Some(seccomp) = seccomp {
        linux["seccomp"] = seccomp;
    }
    Ok(json!({
        "ociVersion": OCI_VERSION,
        "process": process::process(input, &security, &capabilities)?,
        "root": { "path": "rootfs", "readonly": security.readonly_rootfs },
        "mounts": mounts::mounts(input, &security)?,
        "annotations": annotations(input),
        "linux": linux,
    }))
}

fn linux_config(config: &cri::ContainerConfig) -> cri::LinuxContainerConfig {
    config.linux.clone().unwrap_or_default()
}

fn security(config: &cri::ContainerConfig) -> cri::LinuxContainerSecurityContext {
    linux_config(config).security_context.unwrap_or_default()
}

/// The namespaces made or joined. What is not listed is the host's.
fn namespaces(
    security: &cri::LinuxContainerSecurityContext,
    pod: &PodInput<'_>,
) -> Result<Vec<Value>, SpecError> {
    use cri::NamespaceMode::{Container, Node, Pod, Target};
    let options = security.namespace_options.clone().unwrap_or_default();
    let of_pod = |kind: &str| json!(format!("/proc/{}/ns/{kind}", pod.pause_pid));
    let mut namespaces = vec![json!({ "type": "mount" })];
    if !security.privileged {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    // The host's name belongs to the host's network: one goes with the other.
    if pod_network(pod.config) != Node {
        namespaces.push(json!({ "type": "network", "path": of_pod("net") }));
        namespaces.push(json!({ "type": "uts", "path": of_pod("uts") }));
    }
    if options.ipc() != Node {
        namespaces.push(json!({ "type": "ipc", "path": of_pod("ipc") }));
    }
    match options.pid() {
        Pod => namespaces.push(json!({ "type": "pid", "path": of_pod("pid") })),
        Container => namespaces.push(json!({ "type": "pid" })),
        Node => {}
        Target => {
            let pid = pod.target_pid.ok_or_else(|| SpecError::Invalid {
                field: "linux.security_context.namespace_options.target_id".to_owned(),
                reason: format!("container `{}` does not run in this pod", options.target_id),
            })?;
            namespaces.push(json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") }));
        }
    }
    Ok(namespaces)
}

fn pod_network(config: &cri::PodSandboxConfig) -> cri::NamespaceMode {
    let security = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    options.map_or(cri::NamespaceMode::Pod, cri::NamespaceOption::network)
}

fn devices(devices: &[HostDevice]) -> Value {
    let nodes = devices.iter().map(|device| {
        json!({
            "path": device.path,
            "type": device.kind.to_string(),
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
        })
    });
    nodes.collect()
}

/// What other tools read from an OCI configuration, under the names they know.
fn annotations(input: &SpecInput<'_>) -> Value {
    let metadata = input.config.metadata.clone().unwrap_or_default();
    let pod = input.pod.config.metadata.clone().unwrap_or_default();
    json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": metadata.name,
        "io.kubernetes.cri.sandbox-id": input.pod.id,
        "io.kubernetes.cri.sandbox-name": pod.name,
        "io.kubernetes.cri.sandbox-namespace": pod.namespace,
        "io.kubernetes.cri.sandbox-uid": pod.uid,
    })
}

#[cfg(test)]
mod tests;
