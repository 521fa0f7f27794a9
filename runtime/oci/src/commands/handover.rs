//! What passes between the caller and a new process: streams, descriptors, terminal, pid file.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use berth_oci::launch::ProcessIo;
use berth_oci::plan::ProcessPlan;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::Failure;

/// The streams of this process, for the container to inherit.
pub(super) fn own_streams() -> Result<ProcessIo, Failure> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(Failure::io("copy a standard stream"))
    };
    Ok(ProcessIo::Fds {
        stdin: copy(io::stdin().as_fd())?,
        stdout: copy(io::stdout().as_fd())?,
        stderr: copy(io::stderr().as_fd())?,
    })
}

/// Checks that the descriptors which `--preserve-fds` promises are open: `count` of them, after
/// `first` others from 3 on.
pub(super) fn check_preserved(first: u32, count: u32) -> Result<(), Failure> {
    for number in 3 + first..3 + first + count {
        let path = format!("/proc/self/fd/{number}");
        if let Err(source) = std::fs::symlink_metadata(path) {
            let action = format!("preserve descriptor {number} (--preserve-fds {count})");
            return Err(Failure::Io { action, source });
        }
    }
    Ok(())
}

/// Passes on the sockets of socket activation (sd_listen_fds(3)): as many descriptors from 3 on as
/// `LISTEN_FDS` says, if `LISTEN_PID` means this process. The container's init, whose pid inside is
/// 1, gets both variables. Returns how many there are.
pub(super) fn pass_listen_fds(process: &mut ProcessPlan) -> Result<u32, Failure> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => return Ok(0),
    };
    check_preserved(0, count)?;
    let mut variables = vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
    if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
        variables.push(format!("LISTEN_FDNAMES={names}"));
    }
    process
        .env
        .retain(|entry| !entry.to_bytes().starts_with(b"LISTEN_"));
    let variables = variables.into_iter().filter_map(|v| CString::new(v).ok());
    process.env.extend(variables);
    Ok(count)
}

/// Sends a terminal's master side the way engines receive it: one descriptor with some bytes.
pub(super) fn send_console(path: &Path, master: &OwnedFd) -> io::Result<()> {
    let socket = UnixStream::connect(path)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let name = io::IoSlice::new(b"/dev/ptmx");
    rustix::net::sendmsg(&socket, &[name], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Writes a pid file whole, by rename: a watcher never reads half a number.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    let failed = || Failure::io(format!("write the pid file `{}`", path.display()));
    let name = path
        .file_name()
        .ok_or_else(|| Failure::Usage("--pid-file names no file".into()))?;
    let fresh = path.with_file_name(format!(".{}", name.to_string_lossy()));
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&fresh);
    let written = opened.and_then(|mut file| write!(file, "{pid}"));
    let renamed = written.and_then(|()| std::fs::rename(&fresh, path));
    renamed.map_err(|error| {
        let _ = std::fs::remove_file(&fresh); // half a file is no pid file
        failed()(error)
    })
}
