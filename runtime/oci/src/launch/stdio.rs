//! Standard streams of a new process: given descriptors, or a terminal of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::ProcessIo;

/// Makes the three streams of `io` the standard streams of this process; a terminal comes later.
pub(super) fn install(io: &ProcessIo) -> io::Result<()> {
    match io {
        ProcessIo::Fds {
            stdin,
            stdout,
            stderr,
        } => install_fds([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
        ProcessIo::Terminal { .. } => Ok(()),
    }
}

/// Makes `slave` the controlling terminal and all three streams.
pub(super) fn install_terminal(slave: &OwnedFd) -> io::Result<()> {
    rustix::process::ioctl_tiocsctty(slave)?;
    install_fds([slave.as_fd(); 3])
}

fn install_fds(streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    // First out of the way: one of them may be number 0, 1 or 2 itself.
    let mut high = Vec::with_capacity(3);
    for stream in streams {
        high.push(rustix::io::fcntl_dupfd_cloexec(stream, 10)?);
    }
    rustix::stdio::dup2_stdin(&high[0])?;
    rustix::stdio::dup2_stdout(&high[1])?;
    Ok(rustix::stdio::dup2_stderr(&high[2])?)
}

/// The borrowed descriptors of `io`.
pub(super) fn borrowed(io: &ProcessIo) -> Vec<BorrowedFd<'_>> {
    match io {
        ProcessIo::Fds {
            stdin,
            stdout,
            stderr,
        } => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        ProcessIo::Terminal { .. } => Vec::new(),
    }
}

/// Gives the streams to the container's user, so that it can open `/dev/stdout` again.
/// The shared null device keeps its owner; what cannot change hands stays usable as it is.
pub(super) fn give_to(uid: u32) -> io::Result<()> {
    let own = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    give_all(&own, uid)
}

/// As [`give_to`], for streams that are not this process's own yet.
pub(super) fn give_all(streams: &[BorrowedFd<'_>], uid: u32) -> io::Result<()> {
    let null = rustix::fs::makedev(1, 3);
    for stream in streams {
        let stat = rustix::fs::fstat(stream)?;
        if stat.st_uid == uid || stat.st_rdev == null {
            continue;
        }
        match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
