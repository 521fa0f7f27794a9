//! Rules → classic BPF (networking/filter.rst): by architecture, then a binary search by number.

use crate::spec::config::{LinuxSeccompArg, LinuxSeccompOperator as Operator};
use berth_sys::seccomp::Instruction;

use super::CompileError;
use super::rules::{Conditions, KILL_PROCESS, NO_SYSCALL, Rules, Table, Verdict};
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

fn plain(code: u16, k: u32) -> Instruction {
    test(code, k, 0, 0)
}

fn test(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The whole program.
pub(super) fn program(rules: &Rules<'_>) -> Result<Vec<Instruction>, CompileError> {
    let mut code = Code(Vec::new());
    code.verdict(KILL_PROCESS);
    code.branch(JUMP_EQ, ARCH_I386, |code| {
        code.section(rules, Convention::X86);
        code.put(&[plain(LOAD, OFFSET_NUMBER)]);
    });
    code.branch(JUMP_EQ, ARCH_X86_64, |code| {
        code.section(rules, Convention::X86_64);
        // x32 is told by a bit of the number; −1, which a tracer may set, is no x32 call.
        code.branch(JUMP_GE, X32_BIT, |code| {
            code.section(rules, Convention::X32);
        });
        code.put(&[plain(LOAD, OFFSET_NUMBER)]);
    });
    code.put(&[plain(LOAD, OFFSET_ARCH)]);
    let Code(mut program) = code;
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(program.len()));
    }
    program.reverse();
    Ok(program)
}

/// What happens from number `first` on, up to where the next run begins.
#[derive(Debug)]
struct Run<'a> {
    first: u32,
    outcome: Outcome<'a>,
}

/// What happens to a call: the first entry that matches counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome<'a> {
    conditional: &'a [(Conditions<'a>, Verdict)],
    otherwise: Verdict,
}

impl Outcome<'_> {
    fn always(otherwise: Verdict) -> Self {
        let conditional = &[];
        Outcome {
            conditional,
            otherwise,
        }
    }
}

/// All numbers of a convention, in as few runs as there are changes.
fn runs<'a>(table: &'a Table<'_>, default: Verdict) -> Vec<Run<'a>> {
    let base = match table.convention {
        Convention::X32 => X32_BIT,
        _ => 0,
    };
    let mut runs: Vec<Run<'a>> = Vec::with_capacity(2 * table.decisions.len() + 2);
    let mut push = |first, outcome| {
        runs.pop_if(|last| last.first == first);
        if runs.last().is_none_or(|last| last.outcome != outcome) {
            runs.push(Run { first, outcome });
        }
    };
    push(base, Outcome::always(default));
    for (&number, decision) in &table.decisions {
        let outcome = Outcome {
            conditional: &decision.conditional,
            otherwise: decision.otherwise.unwrap_or(default),
        };
        push(number, outcome);
        if table.newest == Some(number) {
            push(number + 1, Outcome::always(NO_SYSCALL));
            if table.convention == Convention::X32 {
                push(base + 512, Outcome::always(default)); // its second block of numbers
            }
        } else {
            push(number + 1, Outcome::always(default));
        }
    }
    runs
}

/// A program from its end to its beginning: where a jump leads is written before the jump.
struct Code(Vec<Instruction>);

impl Code {
    /// Writes before the rest what is given in the order in which it runs.
    fn put(&mut self, instructions: &[Instruction]) {
        self.0.extend(instructions.iter().rev());
    }

    fn verdict(&mut self, verdict: Verdict) {
        self.put(&[plain(RETURN, verdict)]);
    }

    /// `if A <op> k { yes } else { the rest }`, where `yes` ends in a return.
    fn branch(&mut self, operation: u16, k: u32, yes: impl FnOnce(&mut Code)) {
        let rest = self.0.len();
        yes(self);
        let length = self.0.len() - rest;
        match u8::try_from(length) {
            Ok(distance) => self.put(&[test(operation, k, 0, distance)]),
            // A conditional jump reaches 255 instructions, an unconditional one any distance.
            Err(_) => self.put(&[test(operation, k, 1, 0), plain(JUMP, length as u32)]),
        }
    }

    /// The decision of a convention; one that is not listed is killed.
    fn section(&mut self, rules: &Rules<'_>, convention: Convention) {
        let mut tables = rules.tables.iter();
        match tables.find(|table| table.convention == convention) {
            Some(table) => self.search(&runs(table, rules.default), convention),
            None => self.verdict(KILL_PROCESS),
        }
    }

    fn search(&mut self, runs: &[Run<'_>], convention: Convention) {
        match runs {
            [] => self.verdict(KILL_PROCESS), // there is one at least
            [run] => self.decide(run.outcome, convention),
            _ => {
                let (low, high) = runs.split_at(runs.len() / 2);
                self.search(low, convention);
                self.branch(JUMP_GE, high[0].first, |code| code.search(high, convention));
            }
        }
    }

    fn decide(&mut self, outcome: Outcome<'_>, convention: Convention) {
        self.verdict(outcome.otherwise);
        let mut entries = outcome.conditional;
        while let [before @ .., (conditions, verdict)] = entries {
            let values = alike(entries);
            entries = match values.len() {
                0 | 1 => {
                    self.all_of(conditions, *verdict, convention);
                    before
                }
                many => {
                    self.one_of(values, convention);
                    &entries[..entries.len() - many]
                }
            };
        }
    }

    /// The verdict where all conditions hold, else the rest.
    fn all_of(&mut self, conditions: Conditions<'_>, verdict: Verdict, convention: Convention) {
        let rest = self.0.len();
        self.verdict(verdict);
        for condition in conditions.iter().rev() {
            // Distances to the entry's end are small: six comparisons of at most seven instructions.
            let distance = u8::try_from(self.0.len() - rest).unwrap_or(u8::MAX);
            self.compare(condition, convention, distance);
        }
    }

    /// The verdict of all `entries` where the argument that they compare has one of their values, else
    /// the rest: as [`Code::all_of`] one after the other, with the argument read once.
    fn one_of(&mut self, entries: &[(Conditions<'_>, Verdict)], convention: Convention) {
        let Some(&(&[LinuxSeccompArg { index, value, .. }], verdict)) = entries.first() else {
            return; // `alike` has one condition in each
        };
        self.verdict(verdict);
        let mut distance = 0;
        for condition in entries.iter().rev().flat_map(|(conditions, _)| *conditions) {
            let fails = u8::from(distance == 0); // behind the verdict
            self.put(&[test(JUMP_EQ, condition.value as u32, distance, fails)]);
            distance += 1;
        }
        self.put(&[load(index, 0)]);
        if convention != Convention::X86 {
            let high = test(JUMP_EQ, (value >> 32) as u32, 0, distance + 2);
            self.put(&[load(index, 1), high]);
        }
    }

    /// Falls through when the condition holds, else jumps over the `rest` instructions that follow it.
    fn compare(&mut self, condition: &LinuxSeccompArg, convention: Convention, rest: u8) {
        let datum = condition.value_two.unwrap_or(0);
        let (low_value, high_value) = (condition.value as u32, (condition.value >> 32) as u32);
        let (low_datum, high_datum) = (datum as u32, (datum >> 32) as u32);
        let (low, high) = (load(condition.index, 0), load(condition.index, 1));
        let narrow = convention == Convention::X86;
        match condition.op {
            Operator::Eq => {
                self.put(&[low, test(JUMP_EQ, low_value, 0, rest)]);
                if !narrow {
                    self.put(&[high, test(JUMP_EQ, high_value, 0, rest + 2)]);
                }
            }
            Operator::Ne => {
                self.put(&[low, test(JUMP_EQ, low_value, rest, 0)]);
                if !narrow {
                    self.put(&[high, test(JUMP_EQ, high_value, 0, 2)]);
                }
            }
            Operator::MaskedEq => {
                let mask = |part| plain(AND, part);
                self.put(&[low, mask(low_value), test(JUMP_EQ, low_datum, 0, rest)]);
                if !narrow {
                    let test = test(JUMP_EQ, high_datum, 0, rest + 3);
                    self.put(&[high, mask(high_value), test]);
                }
            }
            Operator::Gt => self.ordered(condition, JUMP_GT, true, narrow, rest),
            Operator::Ge => self.ordered(condition, JUMP_GE, true, narrow, rest),
            // a < b is not (a >= b), a <= b is not (a > b)
            Operator::Lt => self.ordered(condition, JUMP_GE, false, narrow, rest),
            Operator::Le => self.ordered(condition, JUMP_GT, false, narrow, rest),
        }
    }

    /// `argument <low> value` on 64 bits, where `low` is > or >=; holds when that equals `wanted`.
    fn ordered(
        &mut self,
        condition: &LinuxSeccompArg,
        low: u16,
        wanted: bool,
        narrow: bool,
        rest: u8,
    ) {
        let (low_value, high_value) = (condition.value as u32, (condition.value >> 32) as u32);
        let pick = |greater: bool, after: u8| match greater == wanted {
            true => after,
            false => after + rest,
        };
        let last = test(low, low_value, pick(true, 0), pick(false, 0));
        self.put(&[load(condition.index, 0), last]);
        if !narrow {
            // The high halves decide unless they are equal.
            let greater = test(JUMP_GT, high_value, pick(true, 3), 0);
            let less = test(JUMP_EQ, high_value, 0, pick(false, 2));
            self.put(&[load(condition.index, 1), greater, less]);
        }
    }
}

/// Half of an argument: 0 the low one, 1 the high one.
fn load(index: u64, half: u32) -> Instruction {
    plain(LOAD, OFFSET_ARGS + 8 * index as u32 + 4 * half)
}

/// A conditional jump reaches 255 instructions.
const MOST_ALIKE: usize = 250;

/// The last entries, as many as say the same where one argument equals one value, and differ in that
/// value's low half alone.
fn alike<'e, 'a>(entries: &'e [(Conditions<'a>, Verdict)]) -> &'e [(Conditions<'a>, Verdict)] {
    let &[.., (&[LinuxSeccompArg { index, value, .. }], verdict)] = entries else {
        return &[];
    };
    let is_alike = |(conditions, other): &&(Conditions<'_>, Verdict)| match conditions {
        [one] => {
            let same_half = one.index == index && one.value >> 32 == value >> 32;
            one.op == Operator::Eq && same_half && *other == verdict
        }
        _ => false,
    };
    let count = entries.iter().rev().take(MOST_ALIKE).take_while(is_alike);
    &entries[entries.len() - count.count()..]
}
