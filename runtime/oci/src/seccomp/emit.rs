//! Rules → classic BPF (networking/filter.rst): by architecture, then a binary search by number.

use crate::spec::config::LinuxSeccompOperator as Operator;
use berth_sys::seccomp::Instruction;

use super::CompileError;
use super::rules::{Condition, Decision, KILL_PROCESS, NO_SYSCALL, Rules, Table, Verdict};
use super::syscalls::{Convention, X32_BIT};

/// `AUDIT_ARCH_X86_64`, linux/audit.h.
pub(super) const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub(super) const ARCH_I386: u32 = 0x4000_0003;

/// The kernel's `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

// Offsets in `struct seccomp_data`, linux/seccomp.h.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

// Operation codes, linux/bpf_common.h.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQ: u16 = 0x15;
pub(super) const JUMP_GT: u16 = 0x25;
pub(super) const JUMP_GE: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

type Code = Vec<Instruction>;

fn plain(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn ret(verdict: Verdict) -> Instruction {
    plain(RETURN, verdict)
}

/// The whole program.
pub(super) fn program(rules: &Rules) -> Result<Code, CompileError> {
    let section = |convention| {
        rules
            .tables
            .iter()
            .find(|table| table.convention == convention)
    };
    let mut native = vec![plain(LOAD, OFFSET_NUMBER)];
    let x32 = match section(Convention::X32) {
        Some(table) => search(table, rules.default),
        None => vec![ret(KILL_PROCESS)],
    };
    // x32 is told by a bit of the number; −1, which a tracer may set, is no x32 call.
    let main = section(Convention::X86_64).map_or_else(
        || vec![ret(KILL_PROCESS)],
        |table| search(table, rules.default),
    );
    native.extend(branch(JUMP_GE, X32_BIT, x32, main));
    let x86 = match section(Convention::X86) {
        Some(table) => {
            let mut code = vec![plain(LOAD, OFFSET_NUMBER)];
            code.extend(search(table, rules.default));
            code
        }
        None => vec![ret(KILL_PROCESS)],
    };
    let other = branch(JUMP_EQ, ARCH_I386, x86, vec![ret(KILL_PROCESS)]);
    let mut code = vec![plain(LOAD, OFFSET_ARCH)];
    code.extend(branch(JUMP_EQ, ARCH_X86_64, native, other));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(code.len()));
    }
    Ok(code)
}

/// `if A <op> k { yes } else { no }`, where both parts end in a return.
fn branch(operation: u16, k: u32, yes: Code, no: Code) -> Code {
    let mut code = Vec::with_capacity(yes.len() + no.len() + 2);
    match u8::try_from(yes.len()) {
        Ok(distance) => code.push(Instruction {
            code: operation,
            jt: 0,
            jf: distance,
            k,
        }),
        // A conditional jump reaches 255 instructions, an unconditional one any distance.
        Err(_) => {
            code.push(Instruction {
                code: operation,
                jt: 1,
                jf: 0,
                k,
            });
            code.push(plain(JUMP, yes.len() as u32));
        }
    }
    code.extend(yes);
    code.extend(no);
    code
}

/// A run of numbers, from `first` up to the next run's, with the same code.
struct Run {
    first: u32,
    code: Code,
}

fn search(table: &Table, default: Verdict) -> Code {
    let base = if table.convention == Convention::X32 {
        X32_BIT
    } else {
        0
    };
    let mut runs = vec![Run {
        first: base,
        code: vec![ret(default)],
    }];
    let mut push = |first: u32, code: Code| match runs.last_mut() {
        Some(last) if last.first == first => last.code = code,
        Some(last) if last.code == code => {}
        _ => runs.push(Run { first, code }),
    };
    for (&number, decision) in &table.decisions {
        push(number, decide(decision, default, table.convention));
        push(number + 1, vec![ret(default)]);
    }
    if let Some(newest) = table.newest {
        // x32 has a second block of numbers from 512 on.
        let ceiling = if table.convention == Convention::X32 {
            base + 512
        } else {
            u32::MAX
        };
        newer_do_not_exist(&mut runs, newest + 1, ceiling, default);
    }
    tree(&runs)
}

fn newer_do_not_exist(runs: &mut Vec<Run>, first: u32, end: u32, default: Verdict) {
    let at = runs
        .iter()
        .position(|run| run.first > first)
        .unwrap_or(runs.len());
    runs.insert(
        at,
        Run {
            first,
            code: vec![ret(NO_SYSCALL)],
        },
    );
    runs.retain({
        let mut seen = false;
        move |run| {
            let keep = run.first != first || run.code == [ret(NO_SYSCALL)] && !seen;
            seen |= run.first == first && keep;
            keep
        }
    });
    if end != u32::MAX && !runs.iter().any(|run| run.first == end) {
        let at = runs
            .iter()
            .position(|run| run.first > end)
            .unwrap_or(runs.len());
        runs.insert(
            at,
            Run {
                first: end,
                code: vec![ret(default)],
            },
        );
    }
}

fn tree(runs: &[Run]) -> Code {
    match runs {
        [] => vec![ret(KILL_PROCESS)],
        [run] => run.code.clone(),
        _ => {
            let (low, high) = runs.split_at(runs.len() / 2);
            branch(JUMP_GE, high[0].first, tree(high), tree(low))
        }
    }
}

fn decide(decision: &Decision, default: Verdict, convention: Convention) -> Code {
    let mut code = Vec::new();
    for (conditions, verdict) in &decision.conditional {
        // Emitted back to front: a failed comparison jumps over the rest of its rule.
        let mut rule = vec![ret(*verdict)];
        for condition in conditions.iter().rev() {
            let mut check = compare(condition, convention, rule.len());
            check.extend(rule);
            rule = check;
        }
        code.extend(rule);
    }
    code.push(ret(decision.otherwise.unwrap_or(default)));
    code
}

/// Falls through when the condition holds, else jumps over the `rest` instructions that follow it.
fn compare(condition: &Condition, convention: Convention, rest: usize) -> Code {
    let offset = OFFSET_ARGS + 8 * condition.index;
    let (low_value, high_value) = (condition.value as u32, (condition.value >> 32) as u32);
    let (low_datum, high_datum) = (condition.datum as u32, (condition.datum >> 32) as u32);
    let load = |part: u32| plain(LOAD, offset + 4 * part);
    // Distances to the rule's end are small: six comparisons of at most seven instructions.
    let rest = u8::try_from(rest).unwrap_or(u8::MAX);
    let test = |code: u16, k: u32, jt: u8, jf: u8| Instruction { code, jt, jf, k };
    let narrow = convention == Convention::X86;
    match condition.operator {
        Operator::Eq if narrow => vec![load(0), test(JUMP_EQ, low_value, 0, rest)],
        Operator::Eq => {
            vec![
                load(1),
                test(JUMP_EQ, high_value, 0, rest + 2),
                load(0),
                test(JUMP_EQ, low_value, 0, rest),
            ]
        }
        Operator::Ne if narrow => vec![load(0), test(JUMP_EQ, low_value, rest, 0)],
        Operator::Ne => {
            vec![
                load(1),
                test(JUMP_EQ, high_value, 0, 2),
                load(0),
                test(JUMP_EQ, low_value, rest, 0),
            ]
        }
        Operator::MaskedEq => {
            let low = [
                load(0),
                plain(AND, low_value),
                test(JUMP_EQ, low_datum, 0, rest),
            ];
            if narrow {
                return low.to_vec();
            }
            let mut code = vec![
                load(1),
                plain(AND, high_value),
                test(JUMP_EQ, high_datum, 0, rest + 3),
            ];
            code.extend(low);
            code
        }
        Operator::Gt => ordered(JUMP_GT, true, narrow, condition.value, &load, rest),
        Operator::Ge => ordered(JUMP_GE, true, narrow, condition.value, &load, rest),
        // a < b is not (a >= b), a <= b is not (a > b)
        Operator::Lt => ordered(JUMP_GE, false, narrow, condition.value, &load, rest),
        Operator::Le => ordered(JUMP_GT, false, narrow, condition.value, &load, rest),
    }
}

/// `argument <low> value` on 64 bits, where `low` is > or >=; holds when that equals `wanted`.
fn ordered(
    low: u16,
    wanted: bool,
    narrow: bool,
    value: u64,
    load: &impl Fn(u32) -> Instruction,
    rest: u8,
) -> Code {
    let (low_value, high_value) = (value as u32, (value >> 32) as u32);
    let (hold, fail) = (|after: u8| after, |after: u8| after + rest);
    let pick = |greater: bool, after: u8| {
        if greater == wanted {
            hold(after)
        } else {
            fail(after)
        }
    };
    let last = Instruction {
        code: low,
        jt: pick(true, 0),
        jf: pick(false, 0),
        k: low_value,
    };
    if narrow {
        return vec![load(0), last];
    }
    vec![
        load(1),
        // The high halves decide unless they are equal.
        Instruction {
            code: JUMP_GT,
            jt: pick(true, 3),
            jf: 0,
            k: high_value,
        },
        Instruction {
            code: JUMP_EQ,
            jt: 0,
            jf: pick(false, 2),
            k: high_value,
        },
        load(0),
        last,
    ]
}
