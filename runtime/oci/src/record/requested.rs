//! Plan → what is asked, field by field. Pure, but for [`pin`], which looks at what a path of the
//! host names at the moment of asking.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use berth_sys::idmap::IdMap;
use berth_sys::mount::{AttributeChange, Propagation, attr};
use berth_sys::ns::NamespaceKind;

use super::digest;
use super::schema::{
    Capabilities, Context, Environment, IdMapLines, Ids, Mount, Namespace, Requested, Seccomp,
};
use crate::cgroup;
use crate::plan::{
    CgroupMode, CgroupPlan, ExecPlan, MountPlan, MountSource, Plan, ProcessPlan, RootfsSource,
};

/// What `plan` asks for its container. With a `salt` the digest of the environment says nothing to
/// who reads it, so that it may be kept until `start`.
pub fn container(plan: &Plan, salt: &str) -> Requested {
    let mut out = process(&plan.process, salt);
    let ids = &plan.namespaces.ids;
    out.uids = Some(Ids::all(outside(&ids.uids, plan.process.uid)));
    out.gids = Some(Ids::all(outside(&ids.gids, plan.process.gid)));
    out.groups = Some(groups(&plan.process.groups, &ids.gids));
    if !ids.uids.is_empty() || !ids.gids.is_empty() {
        out.id_maps = Some(IdMapLines {
            uid: lines(&ids.uids),
            gid: lines(&ids.gids),
        });
    }
    out.namespaces = Some(namespaces(plan));
    // In a mount namespace that exists nothing is mounted: its table is whose it is.
    if !plan.joins(NamespaceKind::Mount) {
        out.mounts = Some(mounts(plan));
        out.masked_paths = Some(paths(&plan.rootfs.masked, "masked"));
        out.readonly_paths = Some(paths(&plan.rootfs.readonly_paths, "read-only"));
    }
    out.sysctls = Some(
        plan.sysctls
            .iter()
            .map(|(file, value)| (file.display().to_string(), value.clone()))
            .collect(),
    );
    limits(&plan.cgroup, &mut out);
    out.context = Context {
        container: plan.id.clone(),
        tolerated: tolerated(plan),
        trees: trees(plan),
        recursive_flags: recursive_flags(plan),
        links: links(plan),
        ..out.context
    };
    pin(&mut out, plan);
    out
}

/// What `plan` asks for a further process of the container `id`.
pub fn further(plan: &ExecPlan, id: &str) -> Requested {
    let mut out = process(&plan.process, "");
    out.uids = Some(Ids::all(plan.process.uid));
    out.gids = Some(Ids::all(plan.process.gid));
    out.groups = Some(groups(&plan.process.groups, &[]));
    out.context.exec = true;
    out.context.container = id.to_owned();
    out.context.target_pid = Some(plan.target_pid);
    if let (Some(path), Ok(mount)) = (&plan.cgroup, cgroup::mount_point()) {
        let inside = path.strip_prefix(mount).ok();
        out.cgroup = inside.map(|inside| format!("/{}", inside.display()));
    }
    out
}

fn process(plan: &ProcessPlan, salt: &str) -> Requested {
    let preserved = (0..3 + plan.preserve_fds).map(|number| {
        let what = if number < 3 { "stream" } else { "preserved" };
        (number, what.to_owned())
    });
    let environment = environment(plan, salt);
    let path = plan.env.iter().rev();
    let path = path
        .map(|entry| entry.to_string_lossy())
        .find_map(|entry| entry.strip_prefix("PATH=").map(str::to_owned));
    Requested {
        capabilities: Some(Capabilities::from(plan.capabilities)),
        no_new_privs: Some(plan.no_new_privs),
        seccomp: Some(match &plan.seccomp {
            None => Seccomp {
                mode: "disabled".into(),
                filters: Vec::new(),
            },
            Some(filter) => Seccomp {
                mode: "filter".into(),
                filters: vec![digest::filter(&filter.program)],
            },
        }),
        lsm_label: plan.apparmor.clone(),
        rlimits: Some(
            plan.rlimits
                .iter()
                .map(|limit| (limit.name.clone(), soft_hard(limit.soft, limit.hard)))
                .collect(),
        ),
        oom_score_adj: plan.oom_score_adj,
        umask: Some(format!("{:04o}", plan.umask)),
        descriptors: Some(preserved.collect()),
        cwd: Some(plan.cwd.display().to_string()),
        environment: Some(environment),
        executable: plan
            .args
            .first()
            .map(|name| name.to_string_lossy().into_owned()),
        context: Context {
            path: path.unwrap_or_else(|| "/bin:/usr/bin".into()),
            preserved: plan.preserve_fds,
            salt: salt.to_owned(),
            ..Context::default()
        },
        ..Requested::default()
    }
}

/// `soft:hard` as the record has it.
pub(super) fn soft_hard(soft: u64, hard: u64) -> String {
    let word = |value: u64| match value {
        u64::MAX => "unlimited".to_owned(),
        value => value.to_string(),
    };
    format!("{}:{}", word(soft), word(hard))
}

fn environment(plan: &ProcessPlan, salt: &str) -> Environment {
    let mut bytes = Vec::new();
    for entry in &plan.env {
        bytes.extend_from_slice(CString::as_bytes_with_nul(entry));
    }
    digest::environment(&bytes, salt)
}

/// The id which the reader sees for `inside`.
fn outside(maps: &[IdMap], inside: u32) -> u32 {
    let line = maps
        .iter()
        .find(|map| inside >= map.inside && inside - map.inside < map.length);
    line.map_or(inside, |map| map.outside + (inside - map.inside))
}

fn groups(groups: &[u32], maps: &[IdMap]) -> Vec<u32> {
    let mut out: Vec<u32> = groups.iter().map(|group| outside(maps, *group)).collect();
    out.sort_unstable(); // as the kernel keeps them
    out
}

fn lines(maps: &[IdMap]) -> Vec<[u32; 3]> {
    maps.iter()
        .map(|map| [map.inside, map.outside, map.length])
        .collect()
}

fn paths(paths: &[std::path::PathBuf], what: &str) -> BTreeMap<String, String> {
    paths
        .iter()
        .map(|path| (path.display().to_string(), what.to_owned()))
        .collect()
}

fn namespaces(plan: &Plan) -> Vec<Namespace> {
    let one = |kind: &NamespaceKind| {
        let joined = plan
            .namespaces
            .join
            .iter()
            .any(|(joined, _)| joined == kind);
        let of = match (plan.namespaces.create.contains(kind), joined) {
            (true, _) => "new",
            (false, true) => "pod",
            (false, false) => "host",
        };
        Namespace {
            kind: kind.proc_name().to_owned(),
            inode: None,
            of: of.to_owned(),
        }
    };
    NamespaceKind::ALL.iter().map(one).collect()
}

fn mounts(plan: &Plan) -> Vec<Mount> {
    let mut out = vec![Mount {
        target: "/".into(),
        source: match &plan.rootfs.source {
            RootfsSource::Path(path) => path.display().to_string(),
            RootfsSource::Overlay { upper, .. } => upper.display().to_string(),
        },
        kind: match &plan.rootfs.source {
            RootfsSource::Path(_) => "bind".into(),
            RootfsSource::Overlay { .. } => "overlay".into(),
        },
        flags: if plan.rootfs.readonly {
            vec!["ro".into()]
        } else {
            Vec::new()
        },
        propagation: propagation_word(plan.rootfs.propagation).into(),
        file: None,
    }];
    for mount in &plan.rootfs.mounts {
        let target = mount.target.display().to_string();
        let flags = words(whole_change(mount));
        let propagation = mount.propagation.last().map(|(kind, _)| *kind);
        if matches!(mount.source, MountSource::Remount { .. }) {
            let found = out
                .iter_mut()
                .rev()
                .find(|earlier| earlier.target == target);
            if let Some(earlier) = found {
                earlier
                    .flags
                    .retain(|word| !flags.iter().any(|new| contradicts(word, new)));
                earlier.flags.extend(flags);
                if let Some(kind) = propagation {
                    earlier.propagation = propagation_word(kind).into();
                }
            }
            continue;
        }
        let (source, kind) = match &mount.source {
            MountSource::Bind { path, .. } => (path.display().to_string(), "bind".to_owned()),
            MountSource::FileSystem { kind, source, .. } => (source.clone(), kind.clone()),
            MountSource::Cgroup { .. } => ("cgroup".into(), "cgroup2".into()),
            MountSource::Remount { .. } => continue,
        };
        out.push(Mount {
            target,
            source,
            kind,
            flags,
            propagation: propagation_word(propagation.unwrap_or(Propagation::Private)).into(),
            file: None,
        });
    }
    out
}

/// What a mount's own and recursive options come to for the mount itself.
fn whole_change(mount: &MountPlan) -> AttributeChange {
    let (own, below) = (mount.attributes, mount.recursive_attributes);
    AttributeChange {
        set: own.set & !below.clear | below.set,
        clear: own.clear & !below.set | below.clear,
        propagation: None,
    }
}

/// The bits of a mount and the words for them set and cleared.
pub(super) const WORDS: [(u64, &str, &str); 6] = [
    (attr::RDONLY, "ro", "rw"),
    (attr::NOSUID, "nosuid", "suid"),
    (attr::NODEV, "nodev", "dev"),
    (attr::NOEXEC, "noexec", "exec"),
    (attr::NODIRATIME, "nodiratime", "diratime"),
    (attr::NOSYMFOLLOW, "nosymfollow", "symfollow"),
];
const TIMES: [&str; 3] = ["relatime", "noatime", "strictatime"];

fn words(change: AttributeChange) -> Vec<String> {
    let mut out = Vec::new();
    for (bit, set, cleared) in WORDS {
        if change.set & bit != 0 {
            out.push(set.to_owned());
        } else if change.clear & bit != 0 {
            out.push(cleared.to_owned());
        }
    }
    match change.set & attr::ATIME {
        attr::NOATIME => out.push("noatime".into()),
        attr::STRICTATIME => out.push("strictatime".into()),
        _ if change.clear & attr::ATIME != 0 => out.push("relatime".into()),
        _ => {}
    }
    out
}

fn contradicts(one: &str, other: &str) -> bool {
    one == other
        || TIMES.contains(&one) && TIMES.contains(&other)
        || WORDS
            .iter()
            .any(|(_, set, cleared)| [(*set, *cleared), (*cleared, *set)].contains(&(one, other)))
}

pub(super) fn propagation_word(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Shared => "shared",
        Propagation::Slave => "slave",
        Propagation::Private => "private",
        Propagation::Unbindable => "unbindable",
    }
}

/// Devices are bound where nodes cannot be made, and a terminal is shown as `/dev/console`.
fn tolerated(plan: &Plan) -> Vec<String> {
    let devices = plan.rootfs.devices.iter();
    let mut out: Vec<String> = devices
        .map(|device| device.path.display().to_string())
        .collect();
    if plan.process.terminal {
        out.push("/dev/console".into());
    }
    out
}

fn trees(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    if matches!(plan.rootfs.source, RootfsSource::Path(_)) {
        out.push("/".to_owned());
    }
    for mount in &plan.rootfs.mounts {
        if let MountSource::Bind {
            recursive: true, ..
        } = mount.source
        {
            out.push(mount.target.display().to_string());
        }
    }
    out
}

fn recursive_flags(plan: &Plan) -> Vec<(String, Vec<String>)> {
    let mounts = plan.rootfs.mounts.iter();
    let mut out: Vec<(String, Vec<String>)> = mounts
        .filter(|mount| !mount.recursive_attributes.is_empty())
        .map(|mount| {
            let flags = words(mount.recursive_attributes);
            (mount.target.display().to_string(), flags)
        })
        .collect();
    for path in &plan.rootfs.readonly_paths {
        out.push((path.display().to_string(), vec!["ro".to_owned()]));
    }
    out
}

fn links(plan: &Plan) -> Vec<String> {
    let mounts = plan.rootfs.mounts.iter();
    mounts
        .filter(|mount| mount.extensions.copy_symlink)
        .map(|mount| mount.target.display().to_string())
        .collect()
}

fn limits(plan: &CgroupPlan, out: &mut Requested) {
    let (CgroupMode::Managed { degraded_ok } | CgroupMode::Systemd { degraded_ok }) = plan.mode
    else {
        return;
    };
    out.cgroup = Some(format!("/{}", plan.path.display()));
    out.context.degraded_ok = degraded_ok;
    if let Ok(mount) = cgroup::mount_point() {
        out.context.cgroup = Some(mount.join(&plan.path).display().to_string());
    }
    // What cannot be compiled is refused when it is applied.
    out.limits = cgroup::requested_files(&plan.resources).ok();
    let devices = plan.resources.devices.clone();
    let program = cgroup::requested_device_program(&devices).ok();
    out.device_rules =
        program.map(|program| program.iter().map(|code| digest::program(code)).collect());
    out.context.devices = devices;
}

/// Notes what the paths of joined namespaces and of bind sources name now.
fn pin(out: &mut Requested, plan: &Plan) {
    for (kind, path) in &plan.namespaces.join {
        let mut all = out.namespaces.iter_mut().flatten();
        if let Some(namespace) = all.find(|one| one.kind == kind.proc_name()) {
            namespace.inode = rustix::fs::stat(path).ok().map(|stat| stat.st_ino);
        }
    }
    for mount in out.mounts.iter_mut().flatten() {
        if mount.kind == "bind" {
            let stat = rustix::fs::stat(Path::new(&mount.source)).ok();
            mount.file = stat.map(|stat| (stat.st_dev, stat.st_ino));
        }
    }
}
