//! A profile as data for the emitter: per calling convention and number, what to decide.

use std::collections::BTreeMap;

use super::CompileError;
use super::syscalls::{Convention, MULTIPLEXED, number};
use crate::spec::config::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall};

/// What the kernel is told to do (`SECCOMP_RET_*` with its data), linux/seccomp.h.
pub(super) type Verdict = u32;

/// Kill the process.
pub(super) const KILL_PROCESS: Verdict = 0x8000_0000;
const KILL_THREAD: Verdict = 0;
const TRAP: Verdict = 0x0003_0000;
const ERRNO: Verdict = 0x0005_0000;
/// Ask the listener.
const NOTIFY: Verdict = 0x7fc0_0000;
const TRACE: Verdict = 0x7ff0_0000;
const LOG: Verdict = 0x7ffc_0000;
/// Let the call through.
pub(super) const ALLOW: Verdict = 0x7fff_0000;
/// The call does not exist.
pub(super) const NO_SYSCALL: Verdict = ERRNO | libc::ENOSYS as u32;

/// Comparisons of arguments, which must all hold.
pub(super) type Conditions<'a> = &'a [LinuxSeccompArg];

/// What happens to one system call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision<'a> {
    /// First match counts.
    pub(super) conditional: Vec<(Conditions<'a>, Verdict)>,
    /// When no entry matches; none means the profile's default.
    pub(super) otherwise: Option<Verdict>,
}

impl Decision<'_> {
    /// Lets a rule without conditions count for every call, as libseccomp does; a condition which
    /// denies more than that still counts.
    fn settle(&mut self) {
        if let Some(otherwise) = self.otherwise {
            self.conditional
                .retain(|(_, verdict)| stricter(*verdict, otherwise) == *verdict);
        }
    }
}

/// The rules of one calling convention.
#[derive(Debug, Clone)]
pub(super) struct Table<'a> {
    pub(super) convention: Convention,
    pub(super) decisions: BTreeMap<u32, Decision<'a>>,
    /// Above the highest number which the profile's author can have known, the call does not exist,
    /// so that programs fall back instead of failing with EPERM.
    pub(super) newest: Option<u32>,
}

/// A profile, ready to be emitted.
#[derive(Debug, Clone)]
pub(super) struct Rules<'a> {
    pub(super) default: Verdict,
    pub(super) tables: Vec<Table<'a>>,
}

pub(super) fn read(profile: &LinuxSeccomp) -> Result<Rules<'_>, CompileError> {
    let default = verdict(profile.default_action, profile.default_errno_ret)?;
    let stub = matches!(
        default & 0xffff_0000,
        ERRNO | TRAP | KILL_PROCESS | KILL_THREAD
    ) && default != NO_SYSCALL;
    let mut tables = Vec::new();
    for convention in conventions(profile)? {
        let mut decisions = BTreeMap::new();
        for rule in &profile.syscalls {
            add(rule, convention, default, &mut decisions)?;
        }
        decisions.values_mut().for_each(Decision::settle);
        let newest = if stub {
            newest(profile, convention)
        } else {
            None
        };
        tables.push(Table {
            convention,
            decisions,
            newest,
        });
    }
    Ok(Rules { default, tables })
}

/// The native convention is always part of the filter.
fn conventions(profile: &LinuxSeccomp) -> Result<Vec<Convention>, CompileError> {
    let mut out = vec![Convention::X86_64];
    for arch in &profile.architectures {
        let convention = match arch {
            Arch::Native | Arch::X86_64 => Convention::X86_64,
            Arch::X86 => Convention::X86,
            Arch::X32 => Convention::X32,
            _ => continue, // a call of an architecture that this kernel does not run cannot happen
        };
        if !out.contains(&convention) {
            out.push(convention);
        }
    }
    Ok(out)
}

fn newest(profile: &LinuxSeccomp, convention: Convention) -> Option<u32> {
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let known = names.filter_map(|name| number(name, convention));
    // x32's own numbers from 512 on are not newer than anything.
    known.filter(|n| n & 0xfff < 512).max()
}

fn add<'a>(
    rule: &'a LinuxSyscall,
    convention: Convention,
    default: Verdict,
    decisions: &mut BTreeMap<u32, Decision<'a>>,
) -> Result<(), CompileError> {
    let verdict = verdict(rule.action, rule.errno_ret)?;
    check(&rule.args)?;
    let mut add = |name: &str, conditions| {
        if let Some(number) = number(name, convention) {
            let decision = decisions.entry(number).or_default();
            // What repeats the default says nothing, as with runc: it keeps no other rule from counting.
            if verdict != default {
                decide(decision, conditions, verdict);
            }
        }
    };
    for name in &rule.names {
        add(name, &rule.args);
        // What is denied directly must not be reachable through the old entry. A condition on the
        // call's own arguments cannot be checked there (they lie in memory).
        if convention == Convention::X86 && default == ALLOW && rule.args.is_empty() {
            for (_, entry, call) in MULTIPLEXED.iter().filter(|(muxed, ..)| muxed == name) {
                add(entry, call);
            }
        }
    }
    Ok(())
}

/// Conditions on different arguments must all hold. Where one argument appears twice, each
/// condition stands for itself, as runc reads such profiles.
fn decide<'a>(decision: &mut Decision<'a>, conditions: Conditions<'a>, verdict: Verdict) {
    let repeated = |(at, one): (usize, &LinuxSeccompArg)| {
        conditions[..at]
            .iter()
            .any(|other| other.index == one.index)
    };
    if conditions.is_empty() {
        let earlier = decision.otherwise.unwrap_or(verdict);
        decision.otherwise = Some(stricter(earlier, verdict));
    } else if conditions.iter().enumerate().any(repeated) {
        let each = conditions.chunks(1).map(|one| (one, verdict));
        decision.conditional.extend(each);
    } else {
        decision.conditional.push((conditions, verdict));
    }
}

fn check(args: &[LinuxSeccompArg]) -> Result<(), CompileError> {
    match args.iter().find(|arg| arg.index > 5) {
        Some(arg) => Err(CompileError::ArgumentIndex(arg.index)),
        None => Ok(()),
    }
}

/// Of two unconditional verdicts for one call the one that grants less (the kernel's own order,
/// where a lower value takes precedence, killing the process first).
fn stricter(a: Verdict, b: Verdict) -> Verdict {
    let rank = |verdict: Verdict| {
        if verdict == KILL_PROCESS {
            0
        } else {
            u64::from(verdict) + 1
        }
    };
    if rank(a) <= rank(b) { a } else { b }
}

fn verdict(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Verdict, CompileError> {
    let returns = matches!(
        action,
        LinuxSeccompAction::Errno | LinuxSeccompAction::Trace
    );
    if errno.is_some() && !returns {
        return Err(CompileError::NoErrno(action)); // config-linux.md: "MUST ... fail"
    }
    let data = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    Ok(match action {
        LinuxSeccompAction::Kill | LinuxSeccompAction::KillThread => KILL_THREAD,
        LinuxSeccompAction::KillProcess => KILL_PROCESS,
        LinuxSeccompAction::Trap => TRAP,
        LinuxSeccompAction::Errno => ERRNO | data,
        LinuxSeccompAction::Trace => TRACE | data,
        LinuxSeccompAction::Log => LOG,
        LinuxSeccompAction::Allow => ALLOW,
        LinuxSeccompAction::Notify => NOTIFY,
    })
}
