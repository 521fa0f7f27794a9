//! Processes: clone3, pidfds, waiting, leaving (clone(2), pidfd_open(2)).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fork_alloc;

/// `CLONE_INTO_CGROUP` of linux/sched.h, which does not fit libc's constant.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What [`clone_with`] makes of the new process.
#[derive(Debug, Default)]
pub struct CloneArgs<'a> {
    /// `CLONE_NEW*` bits of the namespaces to create.
    pub namespaces: i32,
    /// The cgroup2 directory the process is born into (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The process becomes a child of the caller's parent (`CLONE_PARENT`), which waits for it.
    pub sibling: bool,
}

/// A process made by [`clone_with`]. Dropping it does not end the process.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
}

impl Child {
    /// A process that somebody else cloned on behalf of the caller: its number in the caller's PID
    /// namespace, and its pidfd.
    pub fn adopted(pid: i32, pidfd: OwnedFd) -> Child {
        Child { pid, pidfd }
    }

    /// The process id in the caller's PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable once the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Gives the pidfd away.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By `_exit` with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code a shell and the container field report: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Runs `child` in a new process with its own copy of memory, as fork(2) does, and returns in the
/// caller only. The child leaves by `_exit` with the returned code (101 after a panic).
///
/// Only the calling thread exists in the child. If the caller has other threads, a lock that one
/// of them held stays taken in the child for ever; for the heap's lock [`fork_alloc::ForkSafe`]
/// as global allocator removes that danger, and `child` must not touch any other shared lock
/// (std's environment lock, stdout).
pub fn clone_with(args: &CloneArgs<'_>, child: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut raw = RawCloneArgs {
        flags: (libc::CLONE_PIDFD as u64) | (args.namespaces as u32 as u64),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..RawCloneArgs::default()
    };
    if args.sibling {
        raw.flags |= libc::CLONE_PARENT as u64;
        raw.exit_signal = 0; // clone3(2): it is that of the caller itself
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `raw` is a clone_args of the size passed and lives until the call returns; without
    // CLONE_VM and with stack 0 the child goes on on a copy of this stack, exactly as after fork(2).
    // The kernel writes one int to `pidfd`, which outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut raw, size_of::<RawCloneArgs>()) };
    match pid {
        0 => {
            fork_alloc::enter_child();
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            exit_now(code)
        }
        pid if pid > 0 => {
            // SAFETY: the call succeeded with CLONE_PIDFD, so `pidfd` holds a new descriptor that nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child {
                pid: pid as i32,
                pidfd,
            })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct clone_args` of linux/sched.h, version 2 (88 bytes).
#[repr(C)]
#[derive(Default)]
struct RawCloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends the process at once: no destructors, no atexit functions, no flushing.
///
/// Where a seccomp filter refuses even that, the process is aborted, which ends with an instruction
/// that traps: `_exit` of the C library would ask again for ever.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: exit_group takes a number and touches no memory.
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    std::process::abort()
}

/// A pidfd of a running process (pidfd_open(2)); `ESRCH` when there is none.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A copy of the descriptor `number` of the process behind `pidfd` (pidfd_getfd(2), Linux 5.6).
/// Needs the right to trace it.
///
/// # Errors
/// `EBADF` when it has no such descriptor, `ESRCH` when it has ended.
pub fn pidfd_getfd(pidfd: impl AsFd, number: RawFd) -> io::Result<OwnedFd> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: three numbers, no memory; `fd` is borrowed and open.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd, number, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) })
}

/// The number of the process behind `pidfd` in the PID namespace of `/proc`; `ESRCH` when it has ended.
pub fn pidfd_pid(pidfd: impl AsFd) -> io::Result<i32> {
    let info = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let info = std::fs::read_to_string(info)?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = pid.and_then(|pid| pid.trim().parse().ok());
    pid.filter(|pid| *pid > 0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Sends `signal` to the very process behind `pidfd` (never to a later one with the same number).
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed by pidfd_send_signal(2); `fd` is borrowed and open.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Waits for the child behind `pidfd` to end and reaps it (waitid(2) with `P_PIDFD`).
pub fn wait(pidfd: impl AsFd) -> io::Result<Exit> {
    loop {
        match waitid(pidfd.as_fd(), libc::WEXITED) {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reaps the child behind `pidfd` if it has ended; `None` while it runs.
pub fn try_wait(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    waitid(pidfd.as_fd(), libc::WEXITED | libc::WNOHANG)
}

fn waitid(pidfd: BorrowedFd<'_>, options: i32) -> io::Result<Option<Exit>> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is writable memory of the size waitid(2) fills; the descriptor is borrowed and open.
    let rc = unsafe {
        libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd() as u32,
            info.as_mut_ptr(),
            options,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid siginfo_t, and the kernel wrote a whole one over them.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid filled the SIGCHLD member of the union (or left zeroes, which read as pid 0).
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above; si_status belongs to the same member.
    let status = unsafe { info.si_status() };
    Ok(Some(if info.si_code == libc::CLD_EXITED {
        Exit::Code(status)
    } else {
        Exit::Signal(status)
    }))
}

/// Replaces the process image by the program at `path` (execve(2)). Returns only on failure.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: `path` is a C string; both arrays end with null and point at C strings borrowed for the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the process image by the program behind `program` (execveat(2) with `AT_EMPTY_PATH`);
/// a script would need its own name and fails. Returns only on failure.
pub fn exec_fd(program: impl AsFd, args: &[CString], env: &[CString]) -> io::Error {
    let args = pointers(args);
    let env = pointers(env);
    let fd = program.as_fd().as_raw_fd();
    let empty = c"".as_ptr();
    // SAFETY: as for execve; `fd` is borrowed and open, the path is an empty C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            empty,
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|text| text.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2), Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: only the close-on-exec flag of descriptors changes; none is closed under its owner.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives the process a new, empty session keyring (keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING`), so
/// that it cannot reach the keys of the process that made it.
pub fn new_session_keyring() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring; no other memory is passed.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            anonymous,
        )
    };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Puts signal handling into the state in which a program should start: every signal unblocked
/// and with its default action (an ignored signal stays ignored over execve, signal(7)).
pub fn default_signals() -> io::Result<()> {
    // `struct sigaction` of the kernel on x86_64: handler, flags, restorer, mask; zeroes mean SIG_DFL.
    let default = [0u64; 4];
    let mask_size = size_of::<u64>();
    let no_old = std::ptr::null_mut::<u64>();
    for signal in (1..=64).filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP) {
        // By system call, since glibc's function refuses 32 and 33, which may be inherited as ignored.
        // SAFETY: `default` is a whole action and only read; SIG_DFL installs no handler of ours.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                no_old,
                mask_size,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    crate::signal::reset_for_exec()
}

/// Closes every descriptor from 3 on but those in `keep`, see [`close_inherited_from`].
pub fn close_inherited(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    close_inherited_from(3, keep)
}

/// Closes every descriptor from `first` on but those in `keep`. Only for a process just made by
/// [`clone_with`]: whatever else its copied memory believes to own stays open in the parent and
/// is never touched again here.
pub fn close_inherited_from(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd() as u32)
        .filter(|fd| *fd >= first)
        .collect();
    kept.sort_unstable();
    let mut first = first;
    for fd in kept.into_iter().chain([u32::MAX]) {
        let last = if fd == u32::MAX {
            fd
        } else {
            fd.wrapping_sub(1)
        };
        if first <= last && first <= fd {
            // SAFETY: in the child of a clone nothing uses the closed numbers again, see above.
            let rc = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            if rc != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}
