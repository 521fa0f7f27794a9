//! What child and parent say to each other over one SEQPACKET socket, in this order:
//!
//! ```text
//! parent                         child
//!   │ ◀──────────── Born ──────────│   only with a user namespace, over a channel of its own
//!   │ ◀──────────── Degraded ──────│   any number, at any point before Ready
//!   │ ◀──────────── Joined ────────│   only with hooks of the parent, or network devices
//!   │ ──────────── HooksRun ──────▶│
//!   │ ◀──────────── Console ───────│   with the terminal's master side, if there is a terminal
//!   │ ◀──────────── Ready ─────────│   everything is done but the execve
//!   │ ───────────── Leave ────────▶│   only before a start socket: the parent has written down who the child is
//!   │ ───────────── Start ────────▶│
//!   │ ◀──────────── Listener ──────│   only with a seccomp filter that notifies, see notify.rs
//!   │ ◀──── end of stream ─────────│   execve closed the socket: the program runs
//!   │ ◀──────────── Failed ────────│   instead of any of its messages; then the child exits
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::seqpacket::{PeerCred, Socket};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::notify::Handover;
use super::{LaunchError, Timings};

/// From the child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ChildToParent {
    /// Something was not done as asked, and did not need to be; says what and why.
    Degraded(String),
    /// The master side of the terminal comes along.
    Console,
    /// From the process between parent and child: the child with this number was born; its pidfd comes along.
    Born(i32),
    /// The namespaces exist; devices may come, and hooks of the parent may run.
    Joined,
    /// Only execve is left; a container's parts took this long.
    Ready(Timings),
    /// The seccomp filter that is loaded next notifies; a pipe and a pidfd come along.
    Listener(Handover),
    /// It is over.
    Failed(LaunchError),
}

/// From the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ParentToChild {
    /// The parent leaves; go on to the start socket. Without it a child whose parent died would wait
    /// there for ever, known to nobody.
    Leave,
    /// The hooks ran; go on.
    HooksRun,
    /// Execute the program.
    Start,
}

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Channel(Socket);

impl Channel {
    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) = Socket::pair()?;
        Ok((Channel(a), Channel(b)))
    }

    /// Goes on over a socket made elsewhere.
    pub(crate) fn over(socket: Socket) -> Channel {
        Channel(socket)
    }

    /// A second handle to the same end.
    pub(crate) fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel(Socket::from(self.0.as_fd().try_clone_to_owned()?)))
    }

    /// Who made the other end.
    pub(crate) fn peer(&self) -> io::Result<PeerCred> {
        self.0.peer_cred()
    }

    /// Sends one message.
    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.send(&serde_json::to_vec(message)?, fds)
    }

    /// Says that it is over, by write(2): the seccomp filter may be in force already. Without a
    /// listener, or where the filter forbids that too, there is nobody left to tell.
    pub(crate) fn tell_failure(&self, error: LaunchError) {
        let message = ChildToParent::Failed(error);
        let written = serde_json::to_vec(&message).is_ok_and(|bytes| self.0.write(&bytes).is_ok());
        if !written {
            let _ = self.send(&message, &[]);
        }
    }

    /// Receives one message; `None` when the other end is gone.
    pub(crate) fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        match self.0.recv()? {
            Some((bytes, fds)) => Ok(Some((serde_json::from_slice(&bytes)?, fds))),
            None => Ok(None),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
