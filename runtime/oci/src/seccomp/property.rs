//! Whatever the profile: the emitted program decides as a direct reading of the profile does.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::compile;
use super::emit::{ARCH_I386, ARCH_X86_64};
use super::syscalls::number;
use super::tests::{CONVENTIONS, Call, run};
use crate::spec::config::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0026;

/// Names with different numbers, or none, in the three conventions.
const NAMES: [&str; 8] = [
    "read",
    "openat",
    "mkdir",
    "socket",
    "clone3",
    "execve",
    "ioctl",
    "no_such_call",
];
const ACTIONS: [&str; 7] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GT",
    "SCMP_CMP_GE",
    "SCMP_CMP_MASKED_EQ",
];
/// Values around which comparisons turn.
const VALUES: [u64; 7] = [0, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, u64::MAX];

fn argument() -> impl Strategy<Value = Value> {
    let value = || prop::sample::select(&VALUES[..]);
    (0..6usize, prop::sample::select(&OPERATORS[..]), value(), value()).prop_map(
        |(index, op, value, two)| json!({"index": index, "op": op, "value": value, "valueTwo": two}),
    )
}

fn rule() -> impl Strategy<Value = Value> {
    let names = prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4);
    let args = prop::collection::vec(argument(), 0..3);
    (names, prop::sample::select(&ACTIONS[..]), args)
        .prop_map(|(names, action, args)| json!({"names": names, "action": action, "args": args}))
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let architectures = prop::sample::subsequence(
        vec![
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_AARCH64",
        ],
        0..=4,
    );
    let rules = prop::collection::vec(rule(), 0..12);
    (prop::sample::select(&ACTIONS[..]), architectures, rules).prop_map(
        |(default, architectures, rules)| {
            let profile = json!({"defaultAction": default, "architectures": architectures, "syscalls": rules});
            serde_json::from_value(profile).unwrap()
        },
    )
}

fn call() -> impl Strategy<Value = (usize, &'static str, [u64; 6])> {
    let value = prop::sample::select(&VALUES[..]);
    (
        0..3usize,
        prop::sample::select(&NAMES[..7]),
        prop::array::uniform6(value),
    )
}

fn verdict(action: LinuxSeccompAction) -> u32 {
    match action {
        LinuxSeccompAction::Allow => 0x7fff_0000,
        LinuxSeccompAction::Log => 0x7ffc_0000,
        LinuxSeccompAction::Trace => 0x7ff0_0001,
        LinuxSeccompAction::Errno => 0x0005_0001,
        LinuxSeccompAction::Trap => 0x0003_0000,
        LinuxSeccompAction::KillProcess => KILL_PROCESS,
        _ => 0,
    }
}

fn holds(arg: &LinuxSeccompArg, args: &[u64; 6], narrow: bool) -> bool {
    let cut = |value: u64| {
        if narrow {
            u64::from(value as u32)
        } else {
            value
        }
    };
    let (given, value) = (cut(args[arg.index as usize]), cut(arg.value));
    match arg.op {
        LinuxSeccompOperator::Eq => given == value,
        LinuxSeccompOperator::Ne => given != value,
        LinuxSeccompOperator::Lt => given < value,
        LinuxSeccompOperator::Le => given <= value,
        LinuxSeccompOperator::Gt => given > value,
        LinuxSeccompOperator::Ge => given >= value,
        LinuxSeccompOperator::MaskedEq => given & value == cut(arg.value_two.unwrap_or(0)),
    }
}

/// All conditions must hold, or any of them where two are about one argument.
fn applies(rule: &LinuxSyscall, args: &[u64; 6], narrow: bool) -> bool {
    let conditions = &rule.args;
    let mut indices: Vec<u64> = conditions.iter().map(|arg| arg.index).collect();
    indices.sort_unstable();
    let twice = indices.windows(2).any(|pair| pair[0] == pair[1]);
    let mut all = conditions.iter().map(|arg| holds(arg, args, narrow));
    if twice {
        all.any(|held| held)
    } else {
        all.all(|held| held)
    }
}

/// The profile, read word by word, without the rules that repeat the default: rules with conditions
/// first, in order, but for those that grant more than one without; then of those without the strictest;
/// then the default, where what no rule of a denying profile can have known is missing.
fn read(profile: &LinuxSeccomp, (convention, name, args): (usize, &str, [u64; 6])) -> u32 {
    let listed = profile.architectures.iter().any(|arch| match convention {
        1 => *arch == Arch::X86,
        2 => *arch == Arch::X32,
        _ => true,
    });
    if convention != 0 && !listed {
        return KILL_PROCESS;
    }
    let rules = &profile.syscalls;
    let default = verdict(profile.default_action);
    let of_call = |rule: &&LinuxSyscall| rule.names.iter().any(|other| other == name);
    let told = |rule: &&LinuxSyscall| verdict(rule.action) != default;
    let conditional = |rule: &&LinuxSyscall| !rule.args.is_empty();
    let rank = |verdict: u32| verdict.wrapping_sub(KILL_PROCESS); // the order of seccomp(2)
    let of_call = rules.iter().filter(of_call).filter(told);
    let (matching, plain): (Vec<_>, Vec<_>) = of_call.partition(conditional);
    let strictest = plain.iter().map(|rule| verdict(rule.action));
    let strictest = strictest.min_by_key(|verdict| rank(*verdict));
    let grants_more = |rule: &LinuxSyscall| {
        strictest.is_some_and(|plain| rank(verdict(rule.action)) > rank(plain))
    };
    let mut matching = matching.into_iter().filter(|rule| !grants_more(rule));
    if let Some(rule) = matching.find(|rule| applies(rule, &args, convention == 1)) {
        return verdict(rule.action);
    }
    if let Some(verdict) = strictest {
        return verdict;
    }
    let number = |name: &str| number(name, CONVENTIONS[convention]);
    let known = rules
        .iter()
        .flat_map(|rule| &rule.names)
        .filter_map(|name| number(name));
    let newest = known.filter(|number| number & 0xfff < 512).max();
    let denies = matches!(
        default & 0xffff_0000,
        0x0005_0000 | 0x0003_0000 | 0 | KILL_PROCESS
    );
    let own_x32 = number(name).is_some_and(|number| number & 0xfff >= 512);
    match newest {
        Some(newest) if denies && !own_x32 && number(name).is_some_and(|n| n > newest) => ENOSYS,
        _ => default,
    }
}

#[test]
fn fuzz_seccomp() {
    let calls = prop::collection::vec(call(), 1..40);
    crate::fuzz::run(&(profile(), calls), |(profile, calls)| {
        let program = compile(&profile).unwrap().program;
        for call in calls {
            let (convention, name, args) = call;
            let Some(number) = number(name, CONVENTIONS[convention]) else {
                continue;
            };
            let arch = if convention == 1 {
                ARCH_I386
            } else {
                ARCH_X86_64
            };
            let decided = run(&program, Call { arch, number, args });
            assert_eq!(decided, read(&profile, call), "{call:?} {profile:?}");
        }
    });
}
