//! Security contexts of pod and container, merged into CRI's form.

use berth_proto::cri::{self as v1};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};

use super::host_network;

/// Paths masked unless `procMount` or `privileged` say otherwise.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths made read-only likewise.
const READONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Why a container may not run as its image wants to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NonRootError {
    /// The spec itself asks for root.
    #[error("container's runAsUser breaks non-root policy")]
    AsksForRoot,
    /// The image's user is root.
    #[error("container has runAsNonRoot and image will run as root")]
    ImageIsRoot,
    /// The image's user is a name, which need not be what it says.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({0}), cannot verify user \
         is non-root"
    )]
    ImageUserIsName(String),
}

fn pod_context(pod: &Pod) -> PodSecurityContext {
    pod.spec
        .as_ref()
        .and_then(|s| s.security_context.clone())
        .unwrap_or_default()
}

fn own_context(container: &Container) -> SecurityContext {
    container.security_context.clone().unwrap_or_default()
}

/// Checks `runAsNonRoot` against the spec and the image's user.
///
/// # Errors
/// When the container would, or might, run as root.
pub fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image: Option<&v1::Image>,
) -> Result<(), NonRootError> {
    let (whole, own) = (pod_context(pod), own_context(container));
    if own.run_as_non_root.or(whole.run_as_non_root) != Some(true) {
        return Ok(());
    }
    match own.run_as_user.or(whole.run_as_user) {
        Some(0) => return Err(NonRootError::AsksForRoot),
        Some(_) => return Ok(()),
        None => {}
    }
    match image {
        Some(image) if image.uid.as_ref().is_some_and(|u| u.value != 0) => Ok(()),
        Some(image) if !image.username.is_empty() => {
            Err(NonRootError::ImageUserIsName(image.username.clone()))
        }
        _ => Err(NonRootError::ImageIsRoot),
    }
}

/// The namespaces a pod shares with its containers or the host.
#[must_use]
pub fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = pod.spec.as_ref();
    let host = |asked: Option<bool>| asked == Some(true);
    let pid = if host(spec.and_then(|s| s.host_pid)) {
        v1::NamespaceMode::Node
    } else if host(spec.and_then(|s| s.share_process_namespace)) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    let or_node = |asked| {
        if asked {
            v1::NamespaceMode::Node
        } else {
            v1::NamespaceMode::Pod
        }
    };
    v1::NamespaceOption {
        network: or_node(host_network(pod)).into(),
        pid: pid.into(),
        ipc: or_node(host(spec.and_then(|s| s.host_ipc))).into(),
        ..Default::default()
    }
}

/// The sandbox's security context.
#[must_use]
pub fn sandbox(pod: &Pod) -> v1::LinuxSandboxSecurityContext {
    let whole = pod_context(pod);
    let privileged = super::init_containers(pod)
        .iter()
        .chain(super::containers(pod))
        .any(|c| own_context(c).privileged == Some(true));
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: whole.run_as_user.map(|value| v1::Int64Value { value }),
        run_as_group: whole.run_as_group.map(|value| v1::Int64Value { value }),
        supplemental_groups: supplemental_groups(&whole),
        supplemental_groups_policy: groups_policy(&whole).into(),
        privileged,
        // The pod's own process needs few system calls.
        seccomp: Some(profile(
            v1::security_profile::ProfileType::RuntimeDefault,
            "",
        )),
        ..Default::default()
    }
}

/// A container's security context.
#[must_use]
pub fn container(pod: &Pod, container: &Container) -> v1::LinuxContainerSecurityContext {
    let (whole, own) = (pod_context(pod), own_context(container));
    let privileged = own.privileged == Some(true);
    let user = own.run_as_user.or(whole.run_as_user);
    let group = own.run_as_group.or(whole.run_as_group);
    let paths = |list: &[&str]| -> Vec<String> {
        if privileged {
            return Vec::new();
        }
        list.iter().map(|p| (*p).to_owned()).collect()
    };
    v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| v1::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: user.map(|value| v1::Int64Value { value }),
        run_as_group: group.map(|value| v1::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental_groups(&whole),
        supplemental_groups_policy: groups_policy(&whole).into(),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(MASKED),
        readonly_paths: paths(READONLY),
        seccomp: Some(seccomp(
            own.seccomp_profile
                .as_ref()
                .or(whole.seccomp_profile.as_ref()),
            privileged,
        )),
        apparmor: own
            .app_armor_profile
            .as_ref()
            .or(whole.app_armor_profile.as_ref())
            .map(apparmor),
        ..Default::default()
    }
}

/// The groups asked for, with the one that owns the volumes.
fn supplemental_groups(whole: &PodSecurityContext) -> Vec<i64> {
    let mut groups = whole.supplemental_groups.clone().unwrap_or_default();
    groups.extend(whole.fs_group.filter(|group| !groups.contains(group)));
    groups
}

fn groups_policy(whole: &PodSecurityContext) -> v1::SupplementalGroupsPolicy {
    match whole.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict,
        _ => v1::SupplementalGroupsPolicy::Merge,
    }
}

fn seccomp(asked: Option<&SeccompProfile>, privileged: bool) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    match asked {
        _ if privileged => profile(ProfileType::Unconfined, ""),
        Some(p) if p.type_ == "RuntimeDefault" => profile(ProfileType::RuntimeDefault, ""),
        Some(p) if p.type_ == "Localhost" => {
            let file = p.localhost_profile.as_deref().unwrap_or_default();
            profile(
                ProfileType::Localhost,
                &format!("/var/lib/kubelet/seccomp/{file}"),
            )
        }
        _ => profile(ProfileType::Unconfined, ""),
    }
}

fn apparmor(asked: &AppArmorProfile) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    match asked.type_.as_str() {
        "Unconfined" => profile(ProfileType::Unconfined, ""),
        _ => profile(ProfileType::RuntimeDefault, ""),
    }
}

fn profile(kind: v1::security_profile::ProfileType, reference: &str) -> v1::SecurityProfile {
    v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: reference.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn the_container_overrides_the_pod() {
        let pod = pod("
            securityContext: {runAsUser: 1, runAsGroup: 2, supplementalGroups: [3], fsGroup: 4,
              seccompProfile: {type: RuntimeDefault}}
            containers:
            - {name: a, securityContext: {runAsUser: 9, allowPrivilegeEscalation: false,
               readOnlyRootFilesystem: true, capabilities: {drop: [ALL], add: [CHOWN]}}}
            - {name: b, securityContext: {privileged: true}}");
        let a = container(&pod, &super::super::containers(&pod)[0]);
        assert_eq!(a.run_as_user.unwrap().value, 9);
        assert_eq!(a.run_as_group.unwrap().value, 2);
        assert_eq!(a.supplemental_groups, [3, 4]);
        assert!(a.no_new_privs && a.readonly_rootfs && !a.masked_paths.is_empty());
        assert_eq!(a.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(a.seccomp.unwrap().profile_type, 0);
        let b = container(&pod, &super::super::containers(&pod)[1]);
        assert!(b.privileged && b.masked_paths.is_empty());
        assert_eq!(b.seccomp.unwrap().profile_type, 1);
    }

    #[test]
    fn non_root_is_verified() {
        let image = |uid: Option<i64>, name: &str| v1::Image {
            uid: uid.map(|value| v1::Int64Value { value }),
            username: name.into(),
            ..Default::default()
        };
        for (spec, image, error) in [
            ("runAsNonRoot: true, runAsUser: 5", None, None),
            (
                "runAsNonRoot: true, runAsUser: 0",
                None,
                Some(NonRootError::AsksForRoot),
            ),
            ("runAsNonRoot: true", Some(image(Some(7), "")), None),
            (
                "runAsNonRoot: true",
                Some(image(None, "")),
                Some(NonRootError::ImageIsRoot),
            ),
            (
                "runAsNonRoot: true",
                Some(image(Some(0), "")),
                Some(NonRootError::ImageIsRoot),
            ),
            (
                "runAsNonRoot: true",
                Some(image(None, "www")),
                Some(NonRootError::ImageUserIsName("www".into())),
            ),
            ("runAsUser: 0", Some(image(None, "")), None),
        ] {
            let pod = pod(&format!(
                "{{securityContext: {{{spec}}}, containers: [{{name: a}}]}}"
            ));
            let container = &super::super::containers(&pod)[0];
            let got = verify_non_root(&pod, container, image.as_ref()).err();
            assert_eq!(got, error, "{spec}");
        }
    }

    #[test]
    fn namespaces_follow_the_spec() {
        use v1::NamespaceMode::{Container, Node, Pod as InPod};
        for (spec, network, pid, ipc) in [
            ("containers: []", InPod, Container, InPod),
            (
                "{shareProcessNamespace: true, containers: []}",
                InPod,
                InPod,
                InPod,
            ),
            (
                "{hostNetwork: true, hostPID: true, hostIPC: true, containers: []}",
                Node,
                Node,
                Node,
            ),
        ] {
            let options = namespaces(&pod(spec));
            let got = (options.network(), options.pid(), options.ipc());
            assert_eq!(got, (network, pid, ipc), "{spec}");
        }
    }
}
