//! A profile as data for the emitter: per calling convention and number, what to decide.

use std::collections::{BTreeMap, HashMap};

use super::CompileError;
use super::syscalls::{Convention, MULTIPLEXED, Numbers, table};
use crate::spec::config::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

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

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u32,
    pub(super) operator: LinuxSeccompOperator,
    pub(super) value: u64,
    pub(super) datum: u64,
}

/// What happens to one system call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// First match counts; all conditions of one entry must hold.
    pub(super) conditional: Vec<(Vec<Condition>, Verdict)>,
    /// When no entry matches; none means the profile's default.
    pub(super) otherwise: Option<Verdict>,
}

/// The rules of one calling convention.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) convention: Convention,
    pub(super) decisions: BTreeMap<u32, Decision>,
    /// Above the highest number which the profile's author can have known, the call does not exist,
    /// so that programs fall back instead of failing with EPERM.
    pub(super) newest: Option<u32>,
}

/// A profile, ready to be emitted.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) default: Verdict,
    pub(super) tables: Vec<Table>,
}

pub(super) fn read(profile: &LinuxSeccomp) -> Result<Rules, CompileError> {
    let default = verdict(profile.default_action, profile.default_errno_ret)?;
    let stub = matches!(
        default & 0xffff_0000,
        ERRNO | TRAP | KILL_PROCESS | KILL_THREAD
    ) && default != NO_SYSCALL;
    let names = table();
    let mut tables = Vec::new();
    for convention in conventions(profile)? {
        let mut decisions = BTreeMap::new();
        for rule in &profile.syscalls {
            add(rule, convention, default, &names, &mut decisions)?;
        }
        let newest = if stub {
            newest(profile, convention, &names)
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

fn number(numbers: &Numbers, convention: Convention) -> Option<u32> {
    match convention {
        Convention::X86_64 => numbers[0],
        Convention::X86 => numbers[1],
        Convention::X32 => numbers[2],
    }
}

fn newest(
    profile: &LinuxSeccomp,
    convention: Convention,
    names: &HashMap<&str, Numbers>,
) -> Option<u32> {
    let rules = profile.syscalls.iter();
    let known = rules
        .flat_map(|rule| &rule.names)
        .filter_map(|name| names.get(name.as_str()));
    // x32's own numbers from 512 on are not newer than anything.
    known
        .filter_map(|numbers| number(numbers, convention))
        .filter(|n| n & 0xfff < 512)
        .max()
}

fn add(
    rule: &LinuxSyscall,
    convention: Convention,
    default: Verdict,
    names: &HashMap<&str, Numbers>,
    decisions: &mut BTreeMap<u32, Decision>,
) -> Result<(), CompileError> {
    let verdict = verdict(rule.action, rule.errno_ret)?;
    let alternatives = alternatives(&rule.args)?;
    for name in &rule.names {
        if let Some(numbers) = names.get(name.as_str())
            && let Some(number) = number(numbers, convention)
        {
            decide(decisions.entry(number).or_default(), &alternatives, verdict);
        }
        // What is denied directly must not be reachable through the old entry. A condition on the
        // call's own arguments cannot be checked there (they lie in memory).
        if convention == Convention::X86 && default == ALLOW && alternatives.is_empty() {
            for (_, entry, call) in MULTIPLEXED.iter().filter(|(muxed, ..)| muxed == name) {
                let entry = names
                    .get(entry)
                    .and_then(|numbers| number(numbers, convention));
                let Some(entry) = entry else { continue };
                let operator = LinuxSeccompOperator::MaskedEq;
                let condition = Condition {
                    index: 0,
                    operator,
                    value: 0xffff,
                    datum: *call,
                };
                decide(
                    decisions.entry(entry).or_default(),
                    &[vec![condition]],
                    verdict,
                );
            }
        }
    }
    Ok(())
}

fn decide(decision: &mut Decision, alternatives: &[Vec<Condition>], verdict: Verdict) {
    if alternatives.is_empty() {
        decision.otherwise = Some(
            decision
                .otherwise
                .map_or(verdict, |earlier| stricter(earlier, verdict)),
        );
        return;
    }
    decision.conditional.extend(
        alternatives
            .iter()
            .map(|conditions| (conditions.clone(), verdict)),
    );
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

/// Conditions on different arguments must all hold. Where one argument appears twice, each
/// condition stands for itself, as runc reads such profiles.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>, CompileError> {
    let mut conditions = Vec::new();
    for arg in args {
        let index = u32::try_from(arg.index).unwrap_or(u32::MAX);
        if index > 5 {
            return Err(CompileError::ArgumentIndex(arg.index));
        }
        let datum = arg.value_two.unwrap_or(0);
        conditions.push(Condition {
            index,
            operator: arg.op,
            value: arg.value,
            datum,
        });
    }
    let repeated = (0..6).any(|index| {
        conditions
            .iter()
            .filter(|condition| condition.index == index)
            .count()
            > 1
    });
    Ok(match (conditions.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, true) => conditions
            .into_iter()
            .map(|condition| vec![condition])
            .collect(),
        (false, false) => vec![conditions],
    })
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
