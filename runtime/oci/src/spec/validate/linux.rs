//! `linux.namespaces`, `linux.sysctl`, `linux.cgroupsPath` and the names of the UTS namespace.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use berth_sys::ns::NamespaceKind;

use super::{Errors, clocks, users};
use crate::cgroup::Scope;
use crate::plan::{CgroupMode, CgroupPlan, Namespaces, Source};
use crate::spec::config::{Linux, LinuxNamespaceType, Spec};

/// The kernel keeps 64 bytes of a host name (`__NEW_UTS_LEN`).
const MAX_HOSTNAME: usize = 64;

impl Namespaces {
    /// Whether the container does not share this kind with its creator.
    pub fn has_own(&self, kind: NamespaceKind) -> bool {
        self.create.contains(&kind) || self.join.iter().any(|(joined, _)| *joined == kind)
    }
}

pub(super) fn namespaces(linux: &Linux, errors: &mut Errors) -> Namespaces {
    let mut out = Namespaces::default();
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let kind = match namespace.kind {
            LinuxNamespaceType::Mount => NamespaceKind::Mount,
            LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
            LinuxNamespaceType::Uts => NamespaceKind::Uts,
            LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
            LinuxNamespaceType::Pid => NamespaceKind::Pid,
            LinuxNamespaceType::Network => NamespaceKind::Net,
            LinuxNamespaceType::User => NamespaceKind::User,
            LinuxNamespaceType::Time => NamespaceKind::Time,
        };
        if out.has_own(kind) {
            errors.add(
                &field,
                format!("namespace type `{}` is given twice", kind.proc_name()),
            );
        }
        let path = &namespace.path;
        if path.as_os_str().is_empty() {
            out.create.push(kind);
        } else if path.is_absolute() {
            out.join.push((kind, path.clone()));
        } else {
            errors.add(format!("{field}.path"), "is not absolute");
        }
    }
    if !out.has_own(NamespaceKind::Mount) {
        errors.add("linux.namespaces", "a mount namespace is needed");
    }
    out.ids = users::maps(linux, errors);
    users::check_namespace(&out, errors);
    out.time_offsets = clocks::offsets(linux, &out, errors);
    out
}

/// A mount namespace that is joined is used as it is: what would change it is refused.
pub(super) fn check_joined_mounts(
    spec: &Spec,
    linux: &Linux,
    namespaces: &Namespaces,
    errors: &mut Errors,
) {
    let mut joined = namespaces.join.iter().map(|(kind, _)| *kind);
    if !joined.any(|kind| kind == NamespaceKind::Mount) {
        return;
    }
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    let fields = [
        ("mounts", !spec.mounts.is_empty()),
        ("root.readonly", readonly),
        ("linux.devices", !linux.devices.is_empty()),
        ("linux.maskedPaths", !linux.masked_paths.is_empty()),
        ("linux.readonlyPaths", !linux.readonly_paths.is_empty()),
        (
            "linux.rootfsPropagation",
            !linux.rootfs_propagation.is_empty(),
        ),
    ];
    for (field, _) in fields.iter().filter(|(_, given)| *given) {
        errors.add(*field, "needs a new mount namespace, not a joined one");
    }
}

pub(super) fn names(spec: &Spec, namespaces: &Namespaces, errors: &mut Errors) {
    let names = [
        ("hostname", &spec.hostname),
        ("domainname", &spec.domainname),
    ];
    for (field, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
        if !namespaces.has_own(NamespaceKind::Uts) {
            errors.add(field, "needs a UTS namespace");
        }
        if name.len() > MAX_HOSTNAME || name.contains(|c: char| c.is_control()) {
            errors.add(field, "is longer than 64 bytes or has control characters");
        }
    }
}

pub(super) fn sysctls(
    linux: &Linux,
    namespaces: &Namespaces,
    errors: &mut Errors,
) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    for (key, value) in &linux.sysctl {
        let field = format!("linux.sysctl.{key}");
        match sysctl_file(key, value) {
            Err(reason) => errors.add(field, reason),
            Ok((_, kind)) if !namespaces.has_own(kind) => {
                errors.add(
                    field,
                    format!("needs its own {} namespace", kind.proc_name()),
                );
            }
            Ok((file, _)) => {
                out.insert(file, value.clone());
            }
        }
    }
    out
}

/// The file below `/proc/sys` of a namespaced kernel parameter, and the namespace it belongs to.
/// Everything else is refused: it would change the host (CVE-2022-0811).
pub(crate) fn sysctl_file(key: &str, value: &str) -> Result<(PathBuf, NamespaceKind), String> {
    const IPC: [&str; 9] = [
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
        "msg_next_id",
    ];
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err("the value has control characters".into());
    }
    // With `/` as first separator dots are part of a name, as for VLAN devices (sysctl(8)).
    let slashed = key
        .find(['.', '/'])
        .is_some_and(|at| key[at..].starts_with('/'));
    let parts: Vec<String> = if slashed {
        key.split('/').map(str::to_owned).collect()
    } else {
        key.split('.').map(|part| part.replace('/', ".")).collect()
    };
    let plain = |part: &String| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.:@".contains(c))
    };
    if !parts.iter().all(plain) {
        return Err("is not the name of a kernel parameter".into());
    }
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    let kind = match names.as_slice() {
        ["net", _, ..] => NamespaceKind::Net,
        ["fs", "mqueue", _] => NamespaceKind::Ipc,
        ["kernel", name] if IPC.contains(name) => NamespaceKind::Ipc,
        ["kernel", "domainname"] => NamespaceKind::Uts,
        ["user", _] => return Err("is of a user namespace, which is not supported".into()),
        _ => return Err("is not a namespaced kernel parameter".into()),
    };
    Ok((parts.iter().collect(), kind))
}

pub(super) fn cgroup(linux: &Linux, source: &Source, errors: &mut Errors) -> CgroupPlan {
    let resources = linux.resources.clone().unwrap_or_default();
    for (field, reason) in crate::cgroup::problems(&resources) {
        errors.add(field, reason);
    }
    let given = Some(linux.cgroups_path.clone()).filter(|path| !path.as_os_str().is_empty());
    let (path, scope) = match source.cgroup {
        CgroupMode::Systemd { .. } => {
            let scope = scope(given, source, errors);
            (scope.as_ref().map_or_else(PathBuf::new, Scope::path), scope)
        }
        _ => (cgroup_path(given, source, errors), None),
    };
    CgroupPlan {
        mode: source.cgroup,
        path,
        scope,
        resources,
    }
}

fn scope(given: Option<PathBuf>, source: &Source, errors: &mut Errors) -> Option<Scope> {
    let text = given.map_or_else(
        || format!("system.slice:berth:{}", source.id),
        |path| path.to_string_lossy().into_owned(),
    );
    let scope = Scope::parse(&text);
    scope
        .map_err(|reason| errors.add("linux.cgroupsPath", reason))
        .ok()
}

fn cgroup_path(given: Option<PathBuf>, source: &Source, errors: &mut Errors) -> PathBuf {
    let path = given.unwrap_or_else(|| Path::new("berth").join(&source.id));
    if source.cgroup != CgroupMode::Disabled {
        if path.to_string_lossy().contains(':') {
            errors.add(
                "linux.cgroupsPath",
                "the form `slice:prefix:name` is for systemd as cgroup manager",
            );
        } else if path.components().any(|part| part == Component::ParentDir) {
            errors.add("linux.cgroupsPath", "contains `..`");
        }
    }
    let path: PathBuf = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    if path.as_os_str().is_empty() {
        errors.add("linux.cgroupsPath", "is the root of the hierarchy");
    }
    path
}
