//! Numbers of system calls by name.

use std::collections::HashMap;

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

/// All numbers of one name, in the order of [`Convention`].
pub(super) type Numbers = [Option<u32>; 3];

/// The table, by name.
pub(super) fn table() -> HashMap<&'static str, Numbers> {
    let lines = include_str!("syscalls.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut columns = line.split('\t');
            let name = columns.next()?;
            let mut number = || columns.next().and_then(|text| text.parse::<u32>().ok());
            Some((
                name,
                [number(), number(), number().map(|bare| bare | X32_BIT)],
            ))
        })
        .collect()
}

/// Calls which old 32-bit programs make through one entry, `socketcall` or `ipc`, with the number
/// of the call as first argument (linux/net.h, linux/ipc.h).
pub(super) const MULTIPLEXED: [(&str, &str, u64); 32] = [
    ("socket", "socketcall", 1),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("listen", "socketcall", 4),
    ("accept", "socketcall", 5),
    ("getsockname", "socketcall", 6),
    ("getpeername", "socketcall", 7),
    ("socketpair", "socketcall", 8),
    ("send", "socketcall", 9),
    ("recv", "socketcall", 10),
    ("sendto", "socketcall", 11),
    ("recvfrom", "socketcall", 12),
    ("shutdown", "socketcall", 13),
    ("setsockopt", "socketcall", 14),
    ("getsockopt", "socketcall", 15),
    ("sendmsg", "socketcall", 16),
    ("recvmsg", "socketcall", 17),
    ("accept4", "socketcall", 18),
    ("recvmmsg", "socketcall", 19),
    ("sendmmsg", "socketcall", 20),
    ("semop", "ipc", 1),
    ("semget", "ipc", 2),
    ("semctl", "ipc", 3),
    ("semtimedop", "ipc", 4),
    ("msgsnd", "ipc", 11),
    ("msgrcv", "ipc", 12),
    ("msgget", "ipc", 13),
    ("msgctl", "ipc", 14),
    ("shmat", "ipc", 21),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shmctl", "ipc", 24),
];
