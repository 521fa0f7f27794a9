//! `process` → [`ProcessPlan`].

use berth_sys::creds::CapabilityMasks;
use oci_spec::runtime::{Capabilities, Linux, LinuxCapabilities, PosixRlimitType, Process};

use super::{Errors, schedule};
use crate::lsm::Modules;
use crate::plan::{ProcessPlan, Rlimit};
use crate::seccomp;

/// The umask of a process whose spec names none, as runc and crun have it.
const DEFAULT_UMASK: u32 = 0o022;

pub(super) fn plan(
    path: &str,
    process: &Process,
    linux: &Linux,
    modules: Modules,
    errors: &mut Errors,
) -> ProcessPlan {
    let user = process.user();
    let args = process.args().as_deref().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        errors.add(format!("{path}.args"), "names no program");
    }
    let cwd = process.cwd();
    if !cwd.is_absolute() {
        errors.add(
            format!("{path}.cwd"),
            format!("`{}` is not absolute", cwd.display()),
        );
    }
    for (field, id) in [("uid", user.uid()), ("gid", user.gid())] {
        if id == u32::MAX {
            errors.add(format!("{path}.user.{field}"), "4294967295 is not an id");
        }
    }
    let umask = user.umask().unwrap_or(DEFAULT_UMASK);
    if umask > 0o777 {
        errors.add(
            format!("{path}.user.umask"),
            format!("{umask:o} has bits outside 0777"),
        );
    }
    let oom_score_adj = process.oom_score_adj();
    if oom_score_adj.is_some_and(|adj| !(-1000..=1000).contains(&adj)) {
        errors.add(format!("{path}.oomScoreAdj"), "is not within −1000 … 1000");
    }
    let terminal = process.terminal().unwrap_or(false);
    let side = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    ProcessPlan {
        args: args
            .iter()
            .map(|arg| errors.c_string(&format!("{path}.args"), arg))
            .collect(),
        env: environment(path, process, errors),
        cwd: cwd.clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask,
        capabilities: capabilities(path, process.capabilities().as_ref(), errors),
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        apparmor: apparmor(path, process, modules, errors),
        selinux: selinux(path, process, modules, errors),
        schedule: schedule::plan(path, process, linux, errors),
        seccomp: linux.seccomp().as_ref().and_then(|profile| {
            seccomp::compile(profile)
                .map_err(|error| errors.add("linux.seccomp", error.to_string()))
                .ok()
        }),
        rlimits: rlimits(path, process, errors),
        oom_score_adj,
        terminal,
        console_size: process
            .console_size()
            .map(|size| (side(size.height()), side(size.width()))),
        preserve_fds: 0,
        new_keyring: true,
    }
}

/// What an exec's process leaves open comes from the container's own process.
pub(super) fn inherit(process: &Process, init: &Process) -> Process {
    let mut process = process.clone();
    if process.capabilities().is_none() {
        process.set_capabilities(init.capabilities().clone());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(init.apparmor_profile().clone());
    }
    if init.no_new_privileges() == Some(true) {
        process.set_no_new_privileges(Some(true));
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(init.oom_score_adj());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(init.rlimits().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(init.selinux_label().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(init.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*init.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(init.exec_cpu_affinity().clone());
    }
    process
}

/// Of two values for one name the last counts: getenv(3) would find the first.
fn environment(path: &str, process: &Process, errors: &mut Errors) -> Vec<std::ffi::CString> {
    let all = process.env().as_deref().unwrap_or_default();
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
    let profile = process.apparmor_profile().clone();
    let profile = profile.filter(|name| !name.is_empty())?;
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
    let label = process.selinux_label().clone();
    let label = label.filter(|label| !label.is_empty())?;
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
        bounding: mask(all.bounding().as_ref()),
        effective: mask(all.effective().as_ref()),
        permitted: mask(all.permitted().as_ref()),
        inheritable: mask(all.inheritable().as_ref()),
        ambient: mask(all.ambient().as_ref()),
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

fn mask(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |mask, capability| {
        mask | 1 << crate::capability::number(*capability)
    })
}

fn rlimits(path: &str, process: &Process, errors: &mut Errors) -> Vec<Rlimit> {
    let mut out: Vec<Rlimit> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let field = format!("{path}.rlimits[{index}]");
        let name = limit.typ().to_string();
        if limit.soft() > limit.hard() {
            errors.add(
                &field,
                format!("{name}: the soft limit is above the hard limit"),
            );
        }
        if out.iter().any(|other| other.name == name) {
            errors.add(&field, format!("{name} is given twice"));
        }
        out.push(Rlimit {
            resource: rlimit_number(limit.typ()),
            name,
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    out
}

fn rlimit_number(kind: PosixRlimitType) -> u32 {
    let number = match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    number as _ // the C libraries differ in the type
}
