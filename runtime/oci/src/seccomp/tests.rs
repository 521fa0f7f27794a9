//! The emitted program, run by an interpreter of classic BPF, against tables of decisions.

use super::emit::{AND, ARCH_I386, ARCH_X86_64, JUMP, JUMP_EQ, JUMP_GE, JUMP_GT, LOAD, RETURN};
use super::syscalls::{Convention, names, number};
use super::{CompileError, compile, default_profile};
use crate::capability::{self, CapabilitySet};
use crate::spec::config::LinuxSeccomp;

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

pub(super) const CONVENTIONS: [Convention; 3] =
    [Convention::X86_64, Convention::X86, Convention::X32];

/// A system call as the kernel shows it to a filter.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

pub(super) fn run(program: &[berth_sys::seccomp::Instruction], call: Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.arch,
        _ => {
            let arg = call.args[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) {
                arg as u32
            } else {
                (arg >> 32) as u32
            }
        }
    };
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let step = program[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            LOAD => a = word(step.k),
            AND => a &= step.k,
            JUMP => at += step.k as usize,
            JUMP_EQ => jump(a == step.k),
            JUMP_GT => jump(a > step.k),
            JUMP_GE => jump(a >= step.k),
            RETURN => return step.k,
            code => panic!("unknown operation {code:#x}"),
        }
    }
}

fn call(name: &str, convention: usize, args: &[u64]) -> Call {
    let number = number(name, CONVENTIONS[convention])
        .unwrap_or_else(|| panic!("{name} has no number in convention {convention}"));
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    Call {
        arch: if convention == 1 {
            ARCH_I386
        } else {
            ARCH_X86_64
        },
        number,
        args: all,
    }
}

fn held(name: &str) -> CapabilitySet {
    capability::of_name(name).unwrap()
}

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

#[test]
fn the_default_profile_decides_as_the_ecosystem_does() {
    let plain = compile(&default_profile(CapabilitySet::default()))
        .unwrap()
        .program;
    let admin = compile(&default_profile(held("SYS_ADMIN")))
        .unwrap()
        .program;
    // name, arguments, without CAP_SYS_ADMIN, with it
    let rows: &[(&str, &[u64], u32, u32)] = &[
        ("read", &[], ALLOW, ALLOW),
        ("openat2", &[], ALLOW, ALLOW),
        ("close_range", &[], ALLOW, ALLOW),
        ("ptrace", &[], ALLOW, ALLOW),
        ("mount", &[], EPERM, ALLOW),
        ("unshare", &[0x1000_0000], EPERM, ALLOW),
        ("setns", &[], EPERM, ALLOW),
        ("bpf", &[], EPERM, ALLOW),
        ("clone", &[0x11], ALLOW, ALLOW),
        ("clone", &[0x1000_0011], EPERM, ALLOW),
        ("clone", &[0x0002_0000], EPERM, ALLOW),
        ("clone3", &[], ENOSYS, ALLOW),
        ("keyctl", &[], EPERM, EPERM),
        ("add_key", &[], EPERM, EPERM),
        ("io_uring_setup", &[], EPERM, EPERM),
        ("userfaultfd", &[], EPERM, EPERM),
        ("kexec_load", &[], EPERM, EPERM),
        ("init_module", &[], EPERM, EPERM),
        ("personality", &[0], ALLOW, ALLOW),
        ("personality", &[8], ALLOW, ALLOW),
        ("personality", &[0xffff_ffff], ALLOW, ALLOW),
        ("personality", &[0x0004_0000], EPERM, EPERM),
        ("socket", &[2, 1, 0], ALLOW, ALLOW),
        ("socket", &[40, 1, 0], EPERM, EPERM),
        ("chroot", &[], EPERM, EPERM),
        ("reboot", &[], EPERM, EPERM),
    ];
    for (name, args, without, with) in rows {
        for convention in 0..3 {
            let call = call(name, convention, args);
            assert_eq!(
                run(&plain, call),
                *without,
                "{name} {args:x?} convention {convention}"
            );
            assert_eq!(
                run(&admin, call),
                *with,
                "{name} {args:x?} convention {convention} with CAP_SYS_ADMIN"
            );
        }
    }
}

#[test]
fn a_capability_opens_its_own_calls_only() {
    let rows = [
        ("SYS_CHROOT", "chroot", "reboot"),
        ("SYS_BOOT", "reboot", "chroot"),
        ("SYS_PTRACE", "process_vm_readv", "acct"),
        ("SYS_MODULE", "finit_module", "iopl"),
        ("SYS_TIME", "settimeofday", "vhangup"),
        ("SYSLOG", "syslog", "bpf"),
        ("BPF", "bpf", "perf_event_open"),
        ("DAC_READ_SEARCH", "open_by_handle_at", "mount"),
    ];
    for (capability, opened, closed) in rows {
        let program = compile(&default_profile(held(capability))).unwrap().program;
        assert_eq!(
            run(&program, call(opened, 0, &[])),
            ALLOW,
            "{capability} {opened}"
        );
        assert_eq!(
            run(&program, call(closed, 0, &[])),
            EPERM,
            "{capability} {closed}"
        );
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let program = compile(&default_profile(CapabilitySet::default()))
        .unwrap()
        .program;
    for (arch, number) in [
        (ARCH_X86_64, 500),
        (ARCH_X86_64, 0x3fff_ffff),
        (ARCH_I386, 500),
        (ARCH_X86_64, 0x4000_01f4),
    ] {
        assert_eq!(
            run(
                &program,
                Call {
                    arch,
                    number,
                    args: [0; 6]
                }
            ),
            ENOSYS,
            "{arch:x} {number:x}"
        );
    }
    let foreign = Call {
        arch: 0xc000_00b7,
        number: 0,
        args: [0; 6],
    };
    assert_eq!(run(&program, foreign), KILL_PROCESS);
}

#[test]
fn x32_numbers_of_their_own_are_known() {
    let program = compile(&default_profile(CapabilitySet::default()))
        .unwrap()
        .program;
    for name in ["execve", "ioctl", "rt_sigaction", "waitid"] {
        let x32 = call(name, 2, &[]);
        assert!(x32.number >= 0x4000_0200, "{name}");
        assert_eq!(run(&program, x32), ALLOW, "{name}");
    }
    assert_eq!(run(&program, call("kexec_load", 2, &[])), EPERM);
}

#[test]
fn every_listed_name_is_a_system_call() {
    let known: Vec<&str> = names().collect();
    for line in include_str!("default.txt").lines() {
        for name in line.split_whitespace() {
            assert!(known.contains(&name), "{name}");
        }
    }
}

#[test]
fn every_call_gets_the_verdict_of_its_rule() {
    // Each call with a verdict of its own: no search, however unbalanced, may mix two up.
    let names: Vec<&str> = names().collect();
    let rules: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            format!(
                r#"{{"names":["{name}"],"action":"SCMP_ACT_ERRNO","errnoRet":{}}}"#,
                i + 2
            )
        })
        .collect();
    let text = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[{}]}}"#,
        rules.join(",")
    );
    let program = compile(&profile(&text)).unwrap().program;
    for (i, name) in names.iter().enumerate() {
        for (convention, kind) in CONVENTIONS.into_iter().enumerate() {
            if number(name, kind).is_some() && !["ipc", "socketcall"].contains(name) {
                assert_eq!(
                    run(&program, call(name, convention, &[])),
                    0x0005_0000 + i as u32 + 2,
                    "{name} {convention}"
                );
            }
        }
    }
}

#[test]
fn comparisons_are_made_on_all_64_bits() {
    let big = 0x1_0000_0005_u64;
    let samples = [
        0,
        4,
        5,
        6,
        0xffff_ffff,
        big - 1,
        big,
        big + 1,
        0x2_0000_0000,
        u64::MAX,
    ];
    type Holds = fn(u64, u64) -> bool;
    let rows: [(&str, Holds); 6] = [
        ("EQ", |a, v| a == v),
        ("NE", |a, v| a != v),
        ("LT", |a, v| a < v),
        ("LE", |a, v| a <= v),
        ("GT", |a, v| a > v),
        ("GE", |a, v| a >= v),
    ];
    for (operator, holds) in rows {
        for value in [5, big] {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["lseek"],"action":"SCMP_ACT_ERRNO",
                "args":[{{"index":2,"value":{value},"op":"SCMP_CMP_{operator}"}}]}}]}}"#
            );
            let program = compile(&profile(&text)).unwrap().program;
            for sample in samples {
                let expected = if holds(sample, value) { EPERM } else { ALLOW };
                assert_eq!(
                    run(&program, call("lseek", 0, &[1, 1, sample])),
                    expected,
                    "{sample:x} {operator} {value:x}"
                );
            }
        }
    }
}

#[test]
fn values_of_one_argument_are_compared_one_after_the_other() {
    // More than a jump reaches, of two verdicts, with a high half that differs.
    let rule = |value: u64, errno: u32| {
        format!(
            r#"{{"names":["lseek"],"action":"SCMP_ACT_ERRNO","errnoRet":{errno},
            "args":[{{"index":1,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
        )
    };
    let values =
        (0..600u64)
            .map(|n| (1000 + n, 7))
            .chain([(1u64 << 32, 7), (5, 8), (6, 8), (5, 9)]);
    let rules: Vec<String> = values
        .clone()
        .map(|(value, errno)| rule(value, errno))
        .collect();
    let text = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{}]}}"#,
        rules.join(",")
    );
    let program = compile(&profile(&text)).unwrap().program;
    assert!(program.len() < 2 * 700, "{}", program.len());
    for (value, errno) in values.take(603) {
        for convention in 0..2 {
            let narrowed = convention == 1 && value >> 32 != 0;
            let expected = if narrowed { ALLOW } else { 0x0005_0000 + errno };
            let asked = if narrowed { 1 } else { value };
            assert_eq!(
                run(&program, call("lseek", convention, &[9, asked])),
                expected,
                "{value}"
            );
        }
    }
    for other in [0, 999, 1600, 1 << 33, 1 << 32 | 1000] {
        assert_eq!(
            run(&program, call("lseek", 0, &[1000, other])),
            ALLOW,
            "{other}"
        );
    }
}

#[test]
fn conditions_on_two_arguments_must_both_hold_and_on_one_argument_either() {
    let both = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["lseek"],"action":"SCMP_ACT_ERRNO","args":[
        {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#;
    let program = compile(&profile(both)).unwrap().program;
    assert_eq!(run(&program, call("lseek", 0, &[1, 2])), EPERM);
    assert_eq!(run(&program, call("lseek", 0, &[1, 3])), ALLOW);
    assert_eq!(run(&program, call("lseek", 0, &[0, 2])), ALLOW);
    let program = compile(&profile(&both.replace("\"index\":1", "\"index\":0")))
        .unwrap()
        .program;
    assert_eq!(run(&program, call("lseek", 0, &[1])), EPERM);
    assert_eq!(run(&program, call("lseek", 0, &[2])), EPERM);
    assert_eq!(run(&program, call("lseek", 0, &[3])), ALLOW);
}

#[test]
fn a_denied_socket_is_denied_through_the_old_entry_too() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
        "syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let program = compile(&profile(text)).unwrap().program;
    assert_eq!(run(&program, call("socketcall", 1, &[1])), EPERM);
    assert_eq!(run(&program, call("socketcall", 1, &[3])), ALLOW);
}

#[test]
fn a_convention_that_is_not_listed_is_killed() {
    let program = compile(&profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#))
        .unwrap()
        .program;
    assert_eq!(run(&program, call("read", 0, &[])), ALLOW);
    assert_eq!(run(&program, call("read", 1, &[])), KILL_PROCESS);
    assert_eq!(run(&program, call("read", 2, &[])), KILL_PROCESS);
}

#[test]
fn what_cannot_be_expressed_is_refused() {
    let with = |fields: &str, action: &str, name: &str, more: &str| {
        compile(&profile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW"{fields},"syscalls":[{{"names":["{name}"],"action":"{action}"{more}}}]}}"#
        )))
    };
    let notify = "SCMP_ACT_NOTIFY";
    let socket = r#","listenerPath":"/run/agent""#;
    let filter = with(socket, notify, "mkdir", "").unwrap();
    assert_eq!(filter.listener.unwrap().path.to_str(), Some("/run/agent"));
    assert_eq!(run(&filter.program, call("mkdir", 0, &[])), 0x7fc0_0000);
    // A path alone asks for nothing.
    let unused = with(socket, "SCMP_ACT_ERRNO", "mkdir", "").unwrap();
    assert_eq!(unused.listener, None);
    // Without a notification there is no wait; the kernel would refuse the flag.
    let killable = r#","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    let filter = with(killable, "SCMP_ACT_ERRNO", "mkdir", "").unwrap();
    assert_eq!(filter.flags, 0);
    let index = r#","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]"#;
    let rows = [
        with("", notify, "mkdir", ""),
        with(r#","listenerPath":"agent""#, notify, "mkdir", ""),
        with(socket, notify, "write", ""),
        with(r#","listenerMetadata":"x""#, "SCMP_ACT_ERRNO", "mkdir", ""),
        with("", "SCMP_ACT_KILL", "mkdir", r#","errnoRet":1"#),
        with("", "SCMP_ACT_KILL", "mkdir", index),
        compile(&profile(
            r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}"#,
        )),
        compile(&profile(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#,
        )),
    ];
    for (number, row) in rows.iter().enumerate() {
        assert!(row.is_err(), "{number}: {row:?}");
    }
    assert_eq!(rows[5], Err(CompileError::ArgumentIndex(6)));
}

#[test]
fn a_rule_without_conditions_is_not_weakened_by_one_with_them() {
    let rule = |action: &str, args: &str| {
        format!(r#"{{"names": ["mkdir"], "action": "SCMP_ACT_{action}", "args": [{args}]}}"#)
    };
    let given = r#"{"index": 1, "value": 511, "op": "SCMP_CMP_EQ"}"#;
    // default, rule with the condition, rule without; what mkdir gets with the condition and without
    for (default, conditional, otherwise, with, without) in [
        ("ALLOW", "ALLOW", "ERRNO", EPERM, EPERM),
        ("ALLOW", "LOG", "ERRNO", EPERM, EPERM),
        ("ALLOW", "ERRNO", "LOG", EPERM, LOG),
        ("ALLOW", "ERRNO", "ALLOW", EPERM, ALLOW),
        ("ERRNO", "ALLOW", "ERRNO", ALLOW, EPERM),
    ] {
        let (one, other) = (rule(conditional, given), rule(otherwise, ""));
        for rules in [format!("{one}, {other}"), format!("{other}, {one}")] {
            let text =
                format!(r#"{{"defaultAction": "SCMP_ACT_{default}", "syscalls": [{rules}]}}"#);
            let program = compile(&profile(&text)).unwrap().program;
            let told = [511, 448].map(|mode| run(&program, call("mkdir", 0, &[0, mode])));
            assert_eq!(told, [with, without], "{text}");
        }
    }
}
