//! `mounts` → [`MountPlan`]s: the option words of config.md and mount(8), each known or refused.

use std::path::Path;

use berth_sys::mount::{AttributeChange, Propagation, attr};
use oci_spec::runtime::{Mount, Spec};

use super::Errors;
use crate::plan::{MountPlan, MountSource, Source};

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

/// What a list of option words asks for.
#[derive(Debug, Default)]
struct Options {
    bind: Option<bool>,
    attributes: AttributeChange,
    recursive: AttributeChange,
    propagation: Vec<(Propagation, bool)>,
    flags: Vec<String>,
    values: Vec<(String, String)>,
}

pub(super) fn plan(spec: &Spec, source: &Source, errors: &mut Errors) -> Vec<MountPlan> {
    let all = spec.mounts().iter().flatten().enumerate();
    all.map(|(index, mount)| one(mount, source, &format!("mounts[{index}]"), errors))
        .collect()
}

fn one(mount: &Mount, source: &Source, field: &str, errors: &mut Errors) -> MountPlan {
    let target = errors.inner_path(&format!("{field}.destination"), mount.destination());
    if target == Path::new("/") {
        errors.add(
            format!("{field}.destination"),
            "the root itself cannot be a mount target",
        );
    }
    let options = parse(
        mount.options().as_deref().unwrap_or_default(),
        field,
        errors,
    );
    let kind = mount.typ().as_deref().unwrap_or("");
    let bind = options.bind.or((kind == "bind").then_some(false));
    let what = match (bind, kind) {
        (Some(recursive), _) => bind_source(mount, source, recursive, field, errors),
        (None, "" | "none") => {
            errors.add(
                format!("{field}.type"),
                "is missing, and no bind option is given",
            );
            MountSource::Cgroup
        }
        (None, "cgroup" | "cgroup2") => MountSource::Cgroup,
        (None, kind) => MountSource::FileSystem {
            kind: kind.to_owned(),
            source: mount
                .source()
                .as_ref()
                .map_or_else(|| kind.to_owned(), |s| s.to_string_lossy().into_owned()),
            values: options.values.clone(),
            flags: options.flags.clone(),
        },
    };
    if matches!(what, MountSource::Bind { .. }) {
        check_bind_options(&options, field, errors);
    }
    check_proc(&target, &what, field, errors);
    MountPlan {
        target,
        source: what,
        attributes: options.attributes,
        recursive_attributes: options.recursive,
        propagation: options.propagation,
    }
}

fn bind_source(
    mount: &Mount,
    source: &Source,
    recursive: bool,
    field: &str,
    errors: &mut Errors,
) -> MountSource {
    let Some(path) = mount
        .source()
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty())
    else {
        errors.add(format!("{field}.source"), "is missing for a bind mount");
        return MountSource::Cgroup;
    };
    MountSource::Bind {
        path: source.bundle.join(path),
        recursive,
    }
}

fn check_bind_options(options: &Options, field: &str, errors: &mut Errors) {
    let known = ["sync", "dirsync", "lazytime", "iversion"]; // of the file system: without effect on a bind
    let flags = options
        .flags
        .iter()
        .filter(|word| !known.contains(&word.as_str()));
    for word in options.values.iter().map(|(key, _)| key).chain(flags) {
        errors.add(
            format!("{field}.options"),
            format!("a bind mount takes no `{word}`"),
        );
    }
}

fn check_proc(target: &Path, what: &MountSource, field: &str, errors: &mut Errors) {
    if !target.starts_with("/proc") || PROC_FILES.iter().any(|file| target == Path::new(file)) {
        return;
    }
    let fine = match what {
        MountSource::FileSystem { kind, .. } => kind == "proc" && target == Path::new("/proc"),
        MountSource::Bind { path, .. } => path == target,
        MountSource::Cgroup => false,
    };
    if !fine {
        errors.add(
            format!("{field}.destination"),
            format!("`{}` may not be covered by a mount", target.display()),
        );
    }
}

fn parse(words: &[String], field: &str, errors: &mut Errors) -> Options {
    let mut out = Options::default();
    for word in words {
        if attribute(word, &mut out) || propagation(word, &mut out) {
            continue;
        }
        match word.as_str() {
            "bind" => out.bind = Some(out.bind.unwrap_or(false)),
            "rbind" => out.bind = Some(true),
            "defaults" | "async" | "loud" | "silent" | "norelatime" | "nolazytime" | "nomand" => {}
            "sync" | "dirsync" | "lazytime" | "iversion" => out.flags.push(word.clone()),
            "remount" | "idmap" | "ridmap" | "tmpcopyup" | "copy-symlink" | "mand" => {
                errors.add(
                    format!("{field}.options"),
                    format!("`{word}` is not supported"),
                );
            }
            _ => match word.split_once('=') {
                Some((key, value)) => out.values.push((key.to_owned(), value.to_owned())),
                None => out.flags.push(word.clone()),
            },
        }
    }
    out
}

/// Applies an option word that changes an attribute of the mount; `r` in front makes it recursive.
fn attribute(word: &str, out: &mut Options) -> bool {
    let known = |word: &str| -> Option<(u64, u64)> {
        Some(match word {
            "ro" => (attr::RDONLY, 0),
            "rw" => (0, attr::RDONLY),
            "nosuid" => (attr::NOSUID, 0),
            "suid" => (0, attr::NOSUID),
            "nodev" => (attr::NODEV, 0),
            "dev" => (0, attr::NODEV),
            "noexec" => (attr::NOEXEC, 0),
            "exec" => (0, attr::NOEXEC),
            "noatime" => (attr::NOATIME, attr::ATIME),
            "atime" | "relatime" | "nostrictatime" => (attr::RELATIME, attr::ATIME),
            "strictatime" => (attr::STRICTATIME, attr::ATIME),
            "nodiratime" => (attr::NODIRATIME, 0),
            "diratime" => (0, attr::NODIRATIME),
            "nosymfollow" => (attr::NOSYMFOLLOW, 0),
            "symfollow" => (0, attr::NOSYMFOLLOW),
            _ => return None,
        })
    };
    let (change, (set, clear)) = match known(word) {
        Some(bits) => (&mut out.attributes, bits),
        None => match word.strip_prefix('r').and_then(known) {
            Some(bits) => (&mut out.recursive, bits),
            None => return false,
        },
    };
    change.set = change.set & !clear | set;
    change.clear = change.clear & !set | clear;
    true
}

fn propagation(word: &str, out: &mut Options) -> bool {
    let known = |word: &str| match word {
        "shared" => Some(Propagation::Shared),
        "slave" => Some(Propagation::Slave),
        "private" => Some(Propagation::Private),
        "unbindable" => Some(Propagation::Unbindable),
        _ => None,
    };
    let found = known(word).map(|kind| (kind, false));
    match found.or_else(|| {
        word.strip_prefix('r')
            .and_then(known)
            .map(|kind| (kind, true))
    }) {
        Some(kind) => {
            out.propagation.push(kind);
            true
        }
        None => false,
    }
}
