//! `process` → [`ProcessPlan`].

use berth_sys::creds::CapabilityMasks;

use super::{Errors, schedule};
use crate::lsm::Modules;
use crate::plan::{ProcessPlan, Rlimit};
use crate::seccomp;
use crate::spec::config::{Linux, LinuxCapabilities, PosixRlimitType, Process};

/// The umask of a process whose spec names none, as runc and crun have it.
const DEFAULT_UMASK: u32 = 0o022;

pub(super) fn plan(
    path: &str,
    process: &Process,
    linux: &Linux,
    modules: Modules,
    errors: &mut Errors,
) -> ProcessPlan {
    let user = &process.user;
    let args = &process.args;
    if args.first().is_none_or(String::is_empty) {
        errors.add(format!("{path}.args"), "names no program");
    }
    let cwd = &process.cwd;
    if !cwd.is_absolute() {
        errors.add(
            format!("{path}.cwd"),
            format!("`{}` is not absolute", cwd.display()),
        );
    }
    for (field, id) in [("uid", user.uid), ("gid", user.gid)] {
        if id == u32::MAX {
            errors.add(format!("{path}.user.{field}"), "4294967295 is not an id");
        }
    }
    let umask = user.umask.unwrap_or(DEFAULT_UMASK);
    if umask > 0o777 {
        errors.add(
            format!("{path}.user.umask"),
            format!("{umask:o} has bits outside 0777"),
        );
    }
    let oom_score_adj = process.oom_score_adj;
    if oom_score_adj.is_some_and(|adj| !(-1000..=1000).contains(&adj)) {
        errors.add(format!("{path}.oomScoreAdj"), "is not within −1000 … 1000");
    }
    let side = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    ProcessPlan {
        args: args
            .iter()
            .map(|arg| errors.c_string(&format!("{path}.args"), arg))
            .collect(),
        env: environment(path, process, errors),
        cwd: cwd.clone(),
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
        umask,
        capabilities: capabilities(path, process.capabilities.as_ref(), errors),
        no_new_privs: process.no_new_privileges,
        apparmor: apparmor(path, process, modules, errors),
        selinux: selinux(path, process, modules, errors),
        schedule: schedule::plan(path, process, linux, errors),
        seccomp: linux.seccomp.as_ref().and_then(|profile| {
            seccomp::compile(profile)
                .map_err(|error| errors.add("linux.seccomp", error.to_string()))
                .ok()
        }),
        rlimits: rlimits(path, process, errors),
        oom_score_adj,
        terminal: process.terminal,
        console_size: process
            .console_size
            .as_ref()
            .map(|size| (side(size.height), side(size.width))),
        preserve_fds: 0,
        new_keyring: true,
    }
}

macro_rules! inherit {
    ($process:ident, $init:ident, $open:ident: $($field:ident),*) => {
        $(if $process.$field.$open() {
            $process.$field.clone_from(&$init.$field);
        })*
    };
}

/// What an exec's process leaves open comes from the container's own process.
pub(super) fn inherit(process: &Process, init: &Process) -> Process {
    let mut process = process.clone();
    process.no_new_privileges |= init.no_new_privileges;
    inherit!(process, init, is_none: capabilities, oom_score_adj, scheduler, io_priority, exec_cpu_affinity);
    inherit!(process, init, is_empty: apparmor_profile, selinux_label, rlimits);
    process
}

/// Of two values for one name the last counts: getenv(3) would find the first.
fn environment(path: &str, process: &Process, errors: &mut Errors) -> Vec<std::ffi::CString> {
    let all = &process.env;
    let mut last = std::collections::HashMap::new();
    for (index, entry) in all.iter().enumerate() {
        match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => drop(last.insert(name, index)),
            _ => errors.add(
                format!("{path}.env[{index}]"),
                format!("`{entry}` is not NAME=VALUE"),
            ),
        }
    }
    let kept = all.iter().enumerate();
    let kept = kept.filter(|(index, entry)| {
        entry
            .split_once('=')
            .is_some_and(|(name, _)| last.get(name) == Some(index))
    });
    kept.map(|(index, entry)| errors.c_string(&format!("{path}.env[{index}]"), entry))
        .collect()
}

/// Without AppArmor a process is unconfined, so that alone may still be asked for.
fn apparmor(
    path: &str,
    process: &Process,
    modules: Modules,
    errors: &mut Errors,
) -> Option<String> {
    let field = format!("{path}.apparmorProfile");
    let profile = process.apparmor_profile.clone();
    if profile.is_empty() {
        return None;
    }
    if profile.contains(['\n', '\0']) {
        errors.add(field, "contains a control character");
    } else if !modules.apparmor {
        if profile != "unconfined" {
            errors.add(field, "apparmor is not enabled on this host");
        }
        return None;
    }
    Some(profile)
}

fn selinux(path: &str, process: &Process, modules: Modules, errors: &mut Errors) -> Option<String> {
    let field = format!("{path}.selinuxLabel");
    let label = process.selinux_label.clone();
    if label.is_empty() {
        return None;
    }
    if !modules.selinux {
        errors.add(field, "selinux is not enabled on this host");
    } else if label.contains(['\n', '\0']) {
        errors.add(field, "contains a control character");
    }
    Some(label)
}

fn capabilities(
    path: &str,
    all: Option<&LinuxCapabilities>,
    errors: &mut Errors,
) -> CapabilityMasks {
    let Some(all) = all else {
        return CapabilityMasks::default();
    };
    let masks = CapabilityMasks {
        bounding: all.bounding.0,
        effective: all.effective.0,
        permitted: all.permitted.0,
        inheritable: all.inheritable.0,
        ambient: all.ambient.0,
    };
    if masks.effective & !masks.permitted != 0 {
        errors.add(
            format!("{path}.capabilities.effective"),
            "is not a part of the permitted set",
        );
    }
    if masks.ambient & !(masks.permitted & masks.inheritable) != 0 {
        errors.add(
            format!("{path}.capabilities.ambient"),
            "is not a part of both the permitted and the inheritable set",
        );
    }
    masks
}

fn rlimits(path: &str, process: &Process, errors: &mut Errors) -> Vec<Rlimit> {
    let mut out: Vec<Rlimit> = Vec::new();
    for (index, limit) in process.rlimits.iter().enumerate() {
        let field = format!("{path}.rlimits[{index}]");
        let name = limit.kind.to_string();
        if limit.soft > limit.hard {
            errors.add(
                &field,
                format!("{name}: the soft limit is above the hard limit"),
            );
        }
        if out.iter().any(|other| other.name == name) {
            errors.add(&field, format!("{name} is given twice"));
        }
        out.push(Rlimit {
            resource: rlimit_number(limit.kind),
            name,
            soft: limit.soft,
            hard: limit.hard,
        });
    }
    out
}

fn rlimit_number(kind: PosixRlimitType) -> u32 {
    let number = match kind {
        PosixRlimitType::Cpu => libc::RLIMIT_CPU,
        PosixRlimitType::Fsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::Data => libc::RLIMIT_DATA,
        PosixRlimitType::Stack => libc::RLIMIT_STACK,
        PosixRlimitType::Core => libc::RLIMIT_CORE,
        PosixRlimitType::Rss => libc::RLIMIT_RSS,
        PosixRlimitType::Nproc => libc::RLIMIT_NPROC,
        PosixRlimitType::Nofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::Memlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::As => libc::RLIMIT_AS,
        PosixRlimitType::Locks => libc::RLIMIT_LOCKS,
        PosixRlimitType::Sigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::Msgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::Nice => libc::RLIMIT_NICE,
        PosixRlimitType::Rtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::Rttime => libc::RLIMIT_RTTIME,
    };
    number as _ // the C libraries differ in the type
}
