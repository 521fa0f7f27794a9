//! Loading a seccomp filter (seccomp(2)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One classic BPF instruction, as the kernel takes it (`struct sock_filter` of linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Distance to go when the comparison holds.
    pub jt: u8,
    /// Distance to go when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Bits of `SECCOMP_SET_MODE_FILTER`.
pub mod flag {
    /// Put the filter on all threads.
    pub const TSYNC: u32 = 1;
    /// Log all actions but allow.
    pub const LOG: u32 = 1 << 1;
    /// Leave speculative store bypass as it is.
    pub const SPEC_ALLOW: u32 = 1 << 2;
    /// A notified call waits killable only.
    pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 1 << 3;

/// Puts `program` on the calling thread, for ever. Needs no_new_privs or `CAP_SYS_ADMIN`.
pub fn load(program: &[Instruction], flags: u32) -> io::Result<()> {
    set_filter(program, flags).map(drop)
}

/// As [`load`], for a program that notifies: returns the descriptor (close-on-exec, the lowest free
/// number) over which a listener decides (seccomp_unotify(2)). [`flag::TSYNC`] is left out: a filter
/// with a listener is for the calling thread.
///
/// # Errors
/// `EBUSY` when an earlier filter of the thread has a listener.
pub fn load_notifying(program: &[Instruction], flags: u32) -> io::Result<OwnedFd> {
    let fd = set_filter(program, flags & !flag::TSYNC | NEW_LISTENER)?;
    // SAFETY: with NEW_LISTENER the call returns a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn set_filter(program: &[Instruction], flags: u32) -> io::Result<libc::c_long> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fprog = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `fprog` points at `length` instructions with sock_filter's layout; both outlive the
    // call and the kernel copies them before it returns.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const fprog,
        )
    };
    if rc >= 0 {
        Ok(rc)
    } else {
        Err(io::Error::last_os_error())
    }
}
