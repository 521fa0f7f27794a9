//! Deciding the system calls that a seccomp filter notifies of (seccomp_unotify(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A call that waits for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// What an answer refers to.
    pub id: u64,
    /// The thread that waits, 0 when it is outside of the caller's PID namespace.
    pub pid: u32,
    /// Number of the call.
    pub number: i32,
    /// Its arguments; a pointer among them may have changed when it is read.
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif` of linux/seccomp.h.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct RawNotification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction_pointer: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp` of linux/seccomp.h.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct RawAnswer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `SECCOMP_IOCTL_NOTIF_RECV`.
const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
/// `SECCOMP_IOCTL_NOTIF_SEND`.
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

/// Waits for the next call. `ENOENT` when the thread was interrupted meanwhile.
pub fn receive(listener: impl AsFd) -> io::Result<Notification> {
    let mut raw = RawNotification::default();
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel fills one zeroed seccomp_notif, which outlives the call; `fd` is borrowed and open.
    let rc = unsafe { libc::ioctl(fd, RECEIVE, &raw mut raw) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Notification {
        id: raw.id,
        pid: raw.pid,
        number: raw.number,
        arguments: raw.arguments,
    })
}

/// Makes the call `id` fail with an error number, or without one lets the kernel execute it.
pub fn answer(listener: impl AsFd, id: u64, errno: Option<i32>) -> io::Result<()> {
    let mut raw = RawAnswer {
        id,
        error: errno.map_or(0, |errno| -errno),
        flags: if errno.is_none() { CONTINUE } else { 0 },
        ..RawAnswer::default()
    };
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one whole seccomp_notif_resp, which outlives the call; `fd` is borrowed and open.
    let rc = unsafe { libc::ioctl(fd, SEND, &raw mut raw) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
