//! Mounts: those every container has, the pod's files, then the request's, parents first.

use std::path::{Component, Path};

use berth_proto::cri;
use serde_json::{Value, json};

use super::{SpecError, SpecInput};
use crate::sandbox::shm;

pub fn mounts(
    input: &SpecInput<'_>,
    security: &cri::LinuxContainerSecurityContext,
) -> Result<Vec<Value>, SpecError> {
    let requested = requested(input.config)?;
    let replaced = |mount: &Value| {
        let destination = mount["destination"].as_str().unwrap_or_default();
        requested
            .iter()
            .any(|(path, _)| Path::new(path) == Path::new(destination))
    };
    let mut mounts = defaults(input, security);
    mounts.extend(pod_files(input));
    mounts.retain(|mount| !replaced(mount));
    mounts.extend(requested.into_iter().map(|(_, mount)| mount));
    Ok(mounts)
}

/// `shared` and `slave` mounts need a root that takes part in propagation.
pub fn rootfs_propagation(config: &cri::ContainerConfig) -> &'static str {
    let any = |wanted| {
        config
            .mounts
            .iter()
            .any(|mount| mount.propagation() == wanted)
    };
    if any(cri::MountPropagation::PropagationBidirectional) {
        "rshared"
    } else if any(cri::MountPropagation::PropagationHostToContainer) {
        "rslave"
    } else {
        "rprivate"
    }
}

fn defaults(input: &SpecInput<'_>, security: &cri::LinuxContainerSecurityContext) -> Vec<Value> {
    let writable = if security.privileged { "rw" } else { "ro" };
    let new = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let host_ipc = security
        .namespace_options
        .as_ref()
        .map(cri::NamespaceOption::ipc)
        == Some(cri::NamespaceMode::Node);
    let shm = if host_ipc {
        Path::new("/dev/shm").to_owned()
    } else {
        input.pod.files.join(shm::NAME)
    };
    vec![
        new("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        new(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        new(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        new("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        new("/sys", "sysfs", &["nosuid", "noexec", "nodev", writable]),
        new(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", writable],
        ),
        bind(
            "/dev/shm",
            &shm,
            &["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"],
        ),
    ]
}

fn pod_files(input: &SpecInput<'_>) -> Vec<Value> {
    let file = |name: &str| {
        bind(
            &format!("/etc/{name}"),
            &input.pod.files.join(name),
            &["rbind", "rprivate", "rw"],
        )
    };
    vec![file("hostname"), file("hosts"), file("resolv.conf")]
}

fn bind(destination: &str, source: &Path, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

/// The request's mounts with their destinations, fewer components first: a mount below
/// another must come after it, whatever the order of the request.
fn requested(config: &cri::ContainerConfig) -> Result<Vec<(String, Value)>, SpecError> {
    let mut mounts = Vec::new();
    for (index, mount) in config.mounts.iter().enumerate() {
        let destination = absolute(&mount.container_path);
        let options = options(mount, &format!("mounts[{index}]"))?;
        let value = bind(&destination, Path::new(&mount.host_path), &options);
        mounts.push((destination, value));
    }
    mounts.sort_by_key(|(destination, _)| Path::new(destination).components().count());
    Ok(mounts)
}

/// A destination without `.`, `//` and trailing slash; relative ones start at the root.
fn absolute(path: &str) -> String {
    let parts = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    format!("/{}", parts.collect::<Vec<_>>().join("/"))
}

fn options(mount: &cri::Mount, field: &str) -> Result<Vec<&'static str>, SpecError> {
    use cri::MountPropagation::{
        PropagationBidirectional, PropagationHostToContainer, PropagationPrivate,
    };
    let propagation = match mount.propagation() {
        PropagationPrivate => "rprivate",
        PropagationHostToContainer => "rslave",
        PropagationBidirectional => "rshared",
    };
    if mount.recursive_read_only {
        let invalid = |reason: &str| SpecError::Invalid {
            field: format!("{field}.recursive_read_only"),
            reason: reason.to_owned(),
        };
        if !mount.readonly {
            return Err(invalid("needs `readonly`"));
        }
        if mount.propagation() != PropagationPrivate {
            return Err(invalid("needs private propagation"));
        }
        return Ok(vec!["rbind", propagation, "rro"]);
    }
    Ok(vec![
        "rbind",
        propagation,
        if mount.readonly { "ro" } else { "rw" },
    ])
}
