//! `mounts` → [`MountPlan`]s, each field checked against the others.

use std::path::Path;

use berth_sys::mount::attr;
use berth_sys::ns::NamespaceKind;

use super::mount_options::{self, Options};
use super::{Errors, idmap};
use crate::plan::{IdMapPlan, IdMaps, MountExtensions, MountPlan, MountSource, Namespaces, Source};
use crate::spec::config::{Mount, Spec};

/// Files below `/proc` which may be replaced (as LXCFS does); any other mount there would let the
/// image forge what the kernel says (CVE-2019-19921).
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
];

/// What a mount is judged by besides itself.
struct Around<'a> {
    source: &'a Source,
    namespaces: &'a Namespaces,
    /// SELinux label of new file systems.
    label: Option<&'a str>,
}

pub(super) fn plan(
    spec: &Spec,
    source: &Source,
    namespaces: &Namespaces,
    errors: &mut Errors,
) -> Vec<MountPlan> {
    let linux = spec.linux.as_ref();
    let around = Around {
        source,
        namespaces,
        label: linux
            .map(|linux| linux.mount_label.as_str())
            .filter(|label| !label.is_empty()),
    };
    let all = spec.mounts.iter().enumerate();
    all.map(|(index, mount)| one(mount, &around, &format!("mounts[{index}]"), errors))
        .collect()
}

fn one(mount: &Mount, around: &Around<'_>, field: &str, errors: &mut Errors) -> MountPlan {
    let target = errors.inner_path(&format!("{field}.destination"), &mount.destination);
    if target == Path::new("/") {
        errors.add(
            format!("{field}.destination"),
            "the root itself cannot be a mount target",
        );
    }
    let options = mount_options::parse(&mount.options);
    let what = what(mount, &options, around, field, errors);
    check_options(&options, &what, field, errors);
    check_proc(&target, &what, field, errors);
    let id_map = id_map(mount, &options, &what, around, field, errors);
    let mut attributes = options.attributes;
    let mut recursive_attributes = options.recursive;
    let what = if is_sysfs(&what) && shows_hosts_net(around.namespaces) {
        recursive_attributes = attributes;
        MountSource::Bind {
            path: "/sys".into(),
            recursive: true,
        }
    } else {
        what
    };
    let shared_view = matches!(what, MountSource::Cgroup { own: false });
    if shared_view && around.namespaces.has_own(NamespaceKind::User) {
        // Its root would be the owner of what it sees there (CVE-2023-25809).
        attributes.set |= attr::RDONLY;
        attributes.clear &= !attr::RDONLY;
    }
    MountPlan {
        target,
        source: what,
        attributes,
        recursive_attributes,
        propagation: options.propagation,
        extensions: MountExtensions {
            copy_symlink: options.copy_symlink,
            copy_up: options.copy_up,
            id_map,
        },
    }
}

fn is_sysfs(what: &MountSource) -> bool {
    matches!(what, MountSource::FileSystem { kind, .. } if kind == "sysfs")
}

/// A new sysfs shows the network namespace, and takes rights over it: those who have none, as root
/// of a user namespace that shares the host's network, are shown the host's own.
fn shows_hosts_net(namespaces: &Namespaces) -> bool {
    namespaces.has_own(NamespaceKind::User) && !namespaces.has_own(NamespaceKind::Net)
}

fn what(
    mount: &Mount,
    options: &Options,
    around: &Around<'_>,
    field: &str,
    errors: &mut Errors,
) -> MountSource {
    let kind = mount.kind.as_str();
    let bind = options.bind.or((kind == "bind").then_some(false));
    match (bind, kind) {
        _ if options.remount => MountSource::Remount {
            values: options.values.clone(),
            flags: options.flags.clone(),
        },
        (Some(recursive), _) => bind_source(mount, around.source, recursive, field, errors),
        (None, "" | "none") => {
            errors.add(
                format!("{field}.type"),
                "is missing, and no bind option is given",
            );
            NOTHING
        }
        (None, "cgroup" | "cgroup2") => MountSource::Cgroup {
            own: around.namespaces.has_own(NamespaceKind::Cgroup),
        },
        (None, kind) => MountSource::FileSystem {
            kind: kind.to_owned(),
            source: match mount.source.to_string_lossy() {
                source if source.is_empty() => kind.to_owned(),
                source => source.into_owned(),
            },
            values: labelled(kind, options, around.label),
            flags: options.flags.clone(),
        },
    }
}

/// What stands in for a mount whose error is noted.
const NOTHING: MountSource = MountSource::Cgroup { own: true };

/// The kernel's own file systems have labels by policy; any other gets the one of the container.
fn labelled(kind: &str, options: &Options, label: Option<&str>) -> Vec<(String, String)> {
    let mut values = options.values.clone();
    if let Some(label) = label
        && !["proc", "sysfs", "mqueue"].contains(&kind)
        && !values.iter().any(|(key, _)| key == "context")
    {
        values.push(("context".into(), label.into()));
    }
    values
}

fn bind_source(
    mount: &Mount,
    source: &Source,
    recursive: bool,
    field: &str,
    errors: &mut Errors,
) -> MountSource {
    if mount.source.as_os_str().is_empty() {
        errors.add(format!("{field}.source"), "is missing for a bind mount");
        return NOTHING;
    }
    MountSource::Bind {
        path: source.bundle.join(&mount.source),
        recursive,
    }
}

fn check_options(options: &Options, what: &MountSource, field: &str, errors: &mut Errors) {
    let field = format!("{field}.options");
    let all = || {
        let values = options.values.iter().map(|(key, _)| key);
        values.chain(&options.flags)
    };
    match what {
        MountSource::Bind { .. } => {
            let strange = all().filter(|word| !mount_options::is_common(word));
            for word in strange {
                errors.add(&field, format!("a bind mount takes no `{word}`"));
            }
        }
        MountSource::Cgroup { .. } => {
            let strange = all().filter(|word| !mount_options::is_common(word));
            for word in strange {
                let of_all = "would change the whole hierarchy, not this mount";
                errors.add(&field, format!("`{word}` {of_all}"));
            }
        }
        MountSource::FileSystem { .. } | MountSource::Remount { .. } => {}
    }
    let is_tmpfs = matches!(what, MountSource::FileSystem { kind, .. } if kind == "tmpfs");
    if options.copy_up && !is_tmpfs {
        errors.add(&field, "`tmpcopyup` needs a tmpfs");
    }
    if options.copy_symlink && !matches!(what, MountSource::Bind { .. }) {
        errors.add(&field, "`copy-symlink` needs a bind mount");
    }
}

fn check_proc(target: &Path, what: &MountSource, field: &str, errors: &mut Errors) {
    if !target.starts_with("/proc") || PROC_FILES.iter().any(|file| target == Path::new(file)) {
        return;
    }
    let fine = match what {
        MountSource::FileSystem { kind, .. } => kind == "proc" && target == Path::new("/proc"),
        MountSource::Bind { path, .. } => path == target,
        MountSource::Remount { .. } => true, // shows nothing new
        MountSource::Cgroup { .. } => false,
    };
    if !fine {
        errors.add(
            format!("{field}.destination"),
            format!("`{}` may not be covered by a mount", target.display()),
        );
    }
}

/// Mappings ask for a translation even without the option, as runc has it.
fn id_map(
    mount: &Mount,
    options: &Options,
    what: &MountSource,
    around: &Around<'_>,
    field: &str,
    errors: &mut Errors,
) -> Option<IdMapPlan> {
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    let mapped = !uids.is_empty() || !gids.is_empty();
    if options.id_map.is_none() && !mapped {
        return None;
    }
    if !matches!(what, MountSource::Bind { .. }) {
        errors.add(field, "only a bind mount can be id-mapped");
    }
    for (name, lines) in [("uidMappings", uids), ("gidMappings", gids)] {
        if mapped && lines.is_empty() {
            errors.add(
                format!("{field}.{name}"),
                "is missing next to the other mapping",
            );
        }
    }
    if !mapped && !around.namespaces.has_own(NamespaceKind::User) {
        let missing = "`idmap` needs uidMappings and gidMappings, or a user namespace";
        errors.add(format!("{field}.options"), missing);
    }
    let maps = mapped.then(|| IdMaps {
        uids: idmap::map(&format!("{field}.uidMappings"), uids, errors),
        gids: idmap::map(&format!("{field}.gidMappings"), gids, errors),
    });
    Some(IdMapPlan {
        maps,
        recursive: options.id_map == Some(true),
    })
}
