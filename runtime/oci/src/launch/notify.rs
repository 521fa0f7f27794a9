//! Handing the descriptor of a notifying seccomp filter to whoever listens at `listenerPath`
//! (config-linux.md, "The Container Process State").
//!
//! Once the filter is loaded, every system call of the child may wait for the listener, which has
//! nothing to answer with yet. So the child makes one call only, a write to a pipe that is full, and
//! its parent does the rest:
//!
//! ```text
//! parent                                    child
//!   │ ◀─ Listener, with pidfd and pipe ───────│  names the number that the descriptor will have
//!   │                                         │  loads the filter
//!   │  takes the descriptor (pidfd_getfd(2))  │  write: waits
//!   │  connects, sends state and descriptor   │
//!   │  empties the pipe ─────────────────────▶│  execve
//! ```

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use berth_sys::{process, seccomp};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::At;
use super::protocol::{Channel, ChildToParent};
use super::{LaunchError, Stage};
use crate::plan::{Filter, Listener};

/// How long the listener may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for the descriptor.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000,
};

/// What the child asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// The number which the filter's descriptor will have in the child.
    number: i32,
    /// `listenerPath`.
    path: PathBuf,
    /// `listenerMetadata`.
    metadata: String,
    /// The container's state; without `pid` the child is its init.
    state: Value,
}

/// Loads a filter with a listener, and returns once the listener has it.
pub(super) fn load(
    filter: &Filter,
    listener: &Listener,
    channel: &Channel,
) -> Result<(), LaunchError> {
    let step = || "load the seccomp filter".to_owned();
    let (number, full) =
        announce(listener, channel).at(Stage::Exec, || "announce the seccomp listener".into())?;
    // From here on nothing is opened or closed, so the number stays true.
    let descriptor =
        seccomp::load_notifying(&filter.program, filter.flags).at(Stage::Exec, step)?;
    // Left to execve: closing is one more call that might wait for ever.
    let (descriptor, full) = (ManuallyDrop::new(descriptor), ManuallyDrop::new(full));
    rustix::io::write(&*full, b"x").at(Stage::Exec, || "reach the seccomp listener".into())?;
    if descriptor.as_raw_fd() == number {
        return Ok(());
    }
    Err(LaunchError::refused(
        Stage::Exec,
        step(),
        "its descriptor has another number than foreseen",
    ))
}

/// Tells the parent; returns the number of the descriptor to come, and the pipe to wait on.
fn announce(listener: &Listener, channel: &Channel) -> io::Result<(i32, OwnedFd)> {
    // The lowest number that is free, and free again before the parent hears of it: whatever that
    // finds there later is the filter's.
    let place = process::pidfd_open(std::process::id() as i32)?;
    let number = place.as_raw_fd();
    let (drain, full) = full_pipe()?;
    let pidfd = rustix::io::fcntl_dupfd_cloexec(&place, number)?;
    drop(place);
    let handover = Handover {
        number,
        path: listener.path.clone(),
        metadata: listener.metadata.clone(),
        state: listener.state.clone(),
    };
    channel.send(
        &ChildToParent::Listener(handover),
        &[drain.as_fd(), pidfd.as_fd()],
    )?;
    Ok((number, full))
}

/// A pipe which takes no further byte.
fn full_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (drain, full) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::pipe::fcntl_setpipe_size(&full, 4096)?;
    rustix::io::ioctl_fionbio(&full, true)?;
    loop {
        match rustix::io::write(&full, &[0u8; 4096]) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    rustix::io::ioctl_fionbio(&full, false)?;
    Ok((drain, full))
}

impl Handover {
    /// The parent's side; `fds` came along. Returns the pipe, to be kept until the child's execve:
    /// a child that finds it broken, as after a failure here, ends.
    pub(super) fn complete(&self, fds: Vec<OwnedFd>) -> Result<OwnedFd, LaunchError> {
        let step = || format!("hand the filter to `{}`", self.path.display());
        let Ok([drain, child]) = <[OwnedFd; 2]>::try_from(fds) else {
            let missing = "the child sent no descriptors";
            return Err(LaunchError::refused(Stage::Exec, step(), missing));
        };
        let socket = self.connect().at(Stage::Exec, step)?;
        let Some(descriptor) = self.take(&child).at(Stage::Exec, step)? else {
            return Ok(drain); // it ended, and tells on the channel why
        };
        let state = self.process_state(&child).at(Stage::Exec, step)?;
        send(&socket, &state, &descriptor).at(Stage::Exec, step)?;
        let mut rest = [0u8; 4096];
        rustix::io::read(&drain, &mut rest).at(Stage::Exec, step)?;
        Ok(drain)
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&self.path)?)?;
        Ok(socket)
    }

    /// The descriptor, as soon as the child has it; `None` when the child is gone.
    fn take(&self, child: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        loop {
            match process::pidfd_getfd(child, self.number) {
                Ok(descriptor) => return Ok(Some(descriptor)),
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
                Err(error) => return Err(error),
            }
            let mut ended = [PollFd::new(child, PollFlags::IN)];
            if rustix::event::poll(&mut ended, Some(&PAUSE))? > 0 {
                return Ok(None);
            }
        }
    }

    fn process_state(&self, child: &OwnedFd) -> io::Result<String> {
        let pid = process::pidfd_pid(child)?;
        let mut state = self.state.clone();
        if state["pid"].is_null() {
            state["pid"] = json!(pid);
        }
        Ok(json!({
            "ociVersion": state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": state,
        })
        .to_string())
    }
}

fn send(socket: &OwnedFd, state: &str, descriptor: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [descriptor.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let text = [IoSlice::new(state.as_bytes())];
    let sent = rustix::net::sendmsg(socket, &text, &mut control, SendFlags::NOSIGNAL)?;
    // A stream may take a part; the descriptor went with the first.
    io::Write::write_all(
        &mut File::from(socket.try_clone()?),
        &state.as_bytes()[sent..],
    )
}
