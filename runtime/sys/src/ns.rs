//! Linux namespaces: kinds, handles, joining (namespaces(7), setns(2)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `CLONE_NEWTIME` of linux/sched.h. It shares its bit with clone(2)'s exit signal, so only
/// unshare(2), setns(2) and clone3(2) take it.
const CLONE_NEWTIME: i32 = 0x80;

/// One kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceKind {
    /// Mount table.
    Mount,
    /// Host and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network devices, addresses, ports.
    Net,
    /// Process ids. A process enters one only by being born into it.
    Pid,
    /// Root of the visible cgroup tree.
    Cgroup,
    /// User and group ids, and the owner of the others.
    User,
    /// Offsets of the monotonic and the boot-time clock (time_namespaces(7)).
    Time,
}

impl NamespaceKind {
    /// Every kind, in the order in which a joiner must enter them: the user namespace gives the
    /// right to enter the others, and the mount namespace goes last because it changes what every path means.
    pub const ALL: [NamespaceKind; 8] = [
        Self::User,
        Self::Cgroup,
        Self::Ipc,
        Self::Uts,
        Self::Net,
        Self::Time,
        Self::Pid,
        Self::Mount,
    ];

    /// The `CLONE_NEW*` bit.
    pub fn flag(self) -> i32 {
        match self {
            Self::Mount => libc::CLONE_NEWNS,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Net => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::User => libc::CLONE_NEWUSER,
            Self::Time => CLONE_NEWTIME,
        }
    }

    /// The file below `/proc/<pid>/ns`.
    pub fn proc_name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Time => "time",
        }
    }
}

/// An open namespace.
#[derive(Debug)]
pub struct Namespace {
    kind: NamespaceKind,
    fd: OwnedFd,
}

impl Namespace {
    /// Opens the namespace file at `path` (`/proc/<pid>/ns/<kind>`, `/run/netns/<name>`, …).
    /// That it is of the kind asked is checked by the kernel when it is joined.
    pub fn open(kind: NamespaceKind, path: &Path) -> io::Result<Namespace> {
        File::open(path).map(|file| Namespace {
            kind,
            fd: file.into(),
        })
    }

    /// The calling thread's own namespace of `kind`.
    pub fn own(kind: NamespaceKind) -> io::Result<Namespace> {
        Self::open(
            kind,
            &Path::new("/proc/thread-self/ns").join(kind.proc_name()),
        )
    }

    /// The kind it was opened as.
    pub fn kind(&self) -> NamespaceKind {
        self.kind
    }

    /// Moves the calling thread into the namespace. For [`NamespaceKind::Pid`] only its later
    /// children are born there; [`NamespaceKind::Mount`] and [`NamespaceKind::User`] need a
    /// process with one thread.
    pub fn join(&self) -> io::Result<()> {
        join(&self.fd, self.kind.flag())
    }
}

impl From<Namespace> for OwnedFd {
    fn from(namespace: Namespace) -> OwnedFd {
        namespace.fd
    }
}

/// Moves the calling thread into the namespace behind `fd`, which must be of the one kind in
/// `flags`; or, if `fd` is a pidfd, in one step into all those of that process whose `CLONE_NEW*`
/// bits are in `flags` (setns(2), Linux 5.8).
pub fn join(fd: impl AsFd, flags: i32) -> io::Result<()> {
    // SAFETY: setns takes a descriptor and a number; `fd` is borrowed, so it is open for the whole
    // call. No memory is passed. What it changes are the thread's namespaces, which no Rust value relies on.
    let rc = unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Moves the calling thread into new namespaces of the kinds in `flags` (unshare(2)).
/// Only `CLONE_NEW*` bits are taken.
pub fn unshare(flags: i32) -> io::Result<()> {
    let all = NamespaceKind::ALL
        .iter()
        .fold(0, |all, kind| all | kind.flag());
    // SAFETY: only namespace bits are passed, so no file descriptor table or memory stops being
    // shared with other threads; no memory is passed.
    let rc = unsafe { libc::unshare(flags & all) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
