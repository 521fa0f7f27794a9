//! Numbers of system calls by name.

use crate::spec::config::{LinuxSeccompArg, LinuxSeccompOperator};

/// The calling conventions of a 64-bit x86 kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Convention {
    /// 64-bit.
    X86_64,
    /// 32-bit (`int 0x80`, also from 64-bit programs).
    X86,
    /// 64-bit registers with 32-bit pointers; shares its architecture number with x86_64.
    X32,
}

/// The bit that marks an x32 call (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

const TEXT: &str = include_str!("syscalls.tsv");

/// Twice as many as there are names: a name that is none is known by one or two looks.
const SLOTS: usize = 1024;

/// Where each name's line begins in the text, plus one: at its hash, or at the next free slot.
static LINES: [u16; SLOTS] = lines();

const fn lines() -> [u16; SLOTS] {
    let text = TEXT.as_bytes();
    let mut slots = [0; SLOTS];
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let mut hash = SEED;
        while text[at] != b'\t' && text[at] != b'\n' {
            hash = mixed(hash, text[at]);
            at += 1;
        }
        let is_name = text[at] == b'\t';
        while text[at] != b'\n' {
            at += 1;
        }
        at += 1;
        if is_name {
            let mut slot = hash as usize % SLOTS;
            while slots[slot] != 0 {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = start as u16 + 1;
        }
    }
    slots
}

// FNV-1a, 32 bits: a few bytes are hashed at once faster than they are compared with several names.
const SEED: u32 = 0x811c_9dc5;

const fn mixed(hash: u32, byte: u8) -> u32 {
    (hash ^ byte as u32).wrapping_mul(0x0100_0193)
}

/// The number of `name` in a convention, if it has one there.
pub(super) fn number(name: &str, convention: Convention) -> Option<u32> {
    let mut slot = name.bytes().fold(SEED, mixed) as usize % SLOTS;
    while LINES[slot] != 0 {
        let line = &TEXT[usize::from(LINES[slot]) - 1..];
        if let Some(columns) = line.strip_prefix(name)
            && columns.starts_with('\t')
        {
            return column(&columns[1..], convention);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

fn column(columns: &str, convention: Convention) -> Option<u32> {
    let mut columns = columns.split(['\t', '\n']);
    let (place, bit) = match convention {
        Convention::X86_64 => (0, 0),
        Convention::X86 => (1, 0),
        Convention::X32 => (2, X32_BIT),
    };
    let number: u32 = columns.nth(place)?.parse().ok()?;
    Some(number | bit)
}

/// All names.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split('\t').next())
}

/// Calls which old 32-bit programs make through one entry, `socketcall` or `ipc`, and that entry's first
/// argument then: the number of the call (linux/net.h, linux/ipc.h).
pub(super) static MULTIPLEXED: [(&str, &str, [LinuxSeccompArg; 1]); 32] = [
    ("socket", "socketcall", call(1)),
    ("bind", "socketcall", call(2)),
    ("connect", "socketcall", call(3)),
    ("listen", "socketcall", call(4)),
    ("accept", "socketcall", call(5)),
    ("getsockname", "socketcall", call(6)),
    ("getpeername", "socketcall", call(7)),
    ("socketpair", "socketcall", call(8)),
    ("send", "socketcall", call(9)),
    ("recv", "socketcall", call(10)),
    ("sendto", "socketcall", call(11)),
    ("recvfrom", "socketcall", call(12)),
    ("shutdown", "socketcall", call(13)),
    ("setsockopt", "socketcall", call(14)),
    ("getsockopt", "socketcall", call(15)),
    ("sendmsg", "socketcall", call(16)),
    ("recvmsg", "socketcall", call(17)),
    ("accept4", "socketcall", call(18)),
    ("recvmmsg", "socketcall", call(19)),
    ("sendmmsg", "socketcall", call(20)),
    ("semop", "ipc", call(1)),
    ("semget", "ipc", call(2)),
    ("semctl", "ipc", call(3)),
    ("semtimedop", "ipc", call(4)),
    ("msgsnd", "ipc", call(11)),
    ("msgrcv", "ipc", call(12)),
    ("msgget", "ipc", call(13)),
    ("msgctl", "ipc", call(14)),
    ("shmat", "ipc", call(21)),
    ("shmdt", "ipc", call(22)),
    ("shmget", "ipc", call(23)),
    ("shmctl", "ipc", call(24)),
];

/// The condition that the lower half of the first argument is `number`: the rest of it does not count.
const fn call(number: u64) -> [LinuxSeccompArg; 1] {
    [LinuxSeccompArg {
        index: 0,
        value: 0xffff,
        value_two: Some(number),
        op: LinuxSeccompOperator::MaskedEq,
    }]
}
