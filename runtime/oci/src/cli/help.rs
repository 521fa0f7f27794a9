//! Help, from the tables.

use std::fmt::Write;

use super::doc::{self, FlagDoc, OperandDoc};
use super::flag::Count;
use super::{Global, VERBS, Verb};

/// What the program is.
const ABOUT: &str = "\
Run containers from OCI bundles

A bundle is a directory with a `config.json` (the OCI runtime specification) and usually the root
file system beside it. `berth-oci spec` writes a template to start from; then

    berth-oci run NAME

runs it. Engines use `create`, `start`, `kill` and `delete` instead. Verbs, flags and answers are
those of runc, so that podman, docker, containerd and CRI-O can use this program in its place.";
/// Where the text of a flag or verb begins, in columns.
const INDENT: usize = 30;
/// The widest line, in columns.
const WIDTH: usize = 100;

/// Of the whole program.
pub fn program() -> String {
    let mut out = format!("{ABOUT}\n\n");
    out.push_str("Usage: berth-oci [FLAGS] VERB [FLAGS] [OPERANDS]\n\nVerbs:\n");
    for verb in VERBS {
        entry(&mut out, &format!("  {}", verb.name), verb.about);
    }
    entry(&mut out, "  help VERB", "Print the help of a verb");
    out.push_str("\nFlags, before or after the verb:\n");
    flags(&mut out, &doc::flags::<Global>());
    entry(
        &mut out,
        "  -v, --version",
        "Print version, commit and version of the specification",
    );
    out.push_str(
        "\nExit status: 0 done; 1 failed; 2 wrong usage; 255 exec could not make its process; in the\n\
         foreground run and exec end with the process's own code, 128 + N after signal N.\n",
    );
    out
}

/// Of one verb.
pub fn verb(verb: &Verb) -> String {
    let mut out = format!("{}\n", verb.about);
    if !verb.more.is_empty() {
        let _ = write!(out, "\n{}\n", verb.more); // writing to a string does not fail
    }
    let operands = (verb.operands)();
    let _ = write!(out, "\nUsage: {}\n", usage(verb, &operands));
    if !operands.is_empty() {
        out.push_str("\nOperands:\n");
        for operand in &operands {
            entry(&mut out, &format!("  {}", operand.name), operand.about);
        }
    }
    out.push_str("\nFlags:\n");
    flags(&mut out, &(verb.flags)());
    out.push_str("\nFlags of every verb: berth-oci --help\n");
    out
}

/// The line under `Usage:`.
fn usage(verb: &Verb, operands: &[OperandDoc]) -> String {
    let mut out = format!("berth-oci [FLAGS] {} [FLAGS]", verb.name);
    for operand in operands {
        out.push_str(&match operand.count {
            Count::One => format!(" {}", operand.name),
            Count::Optional => format!(" [{}]", operand.name),
            Count::Rest => format!(" [{}...]", operand.name),
        });
    }
    out
}

fn flags(out: &mut String, flags: &[FlagDoc]) {
    for flag in flags {
        let mut left = match flag.short {
            Some(letter) => format!("  -{letter}, --{}", flag.long),
            None => format!("      --{}", flag.long),
        };
        if let Some(value) = flag.value {
            left.push(' ');
            left.push_str(if flag.choices.is_empty() {
                value
            } else {
                "WORD"
            });
        }
        let mut about = flag.about.to_owned();
        if !flag.choices.is_empty() {
            about = format!("{about}: {}", flag.choices.join(", "));
        }
        if let Some(default) = flag.default {
            about = format!("{about} [default: {default}]");
        }
        entry(out, &left, &about);
    }
    entry(out, "  -h, --help", "Print help");
}

/// Two columns; what does not fit goes on below the second.
fn entry(out: &mut String, left: &str, right: &str) {
    out.push_str(left);
    let mut column = left.chars().count();
    if column + 2 > INDENT {
        out.push('\n');
        column = 0;
    }
    for word in right.split(' ') {
        let length = word.chars().count();
        if column > INDENT && column + 1 + length > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column < INDENT {
            out.extend(std::iter::repeat_n(' ', INDENT - column));
            column = INDENT;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}
