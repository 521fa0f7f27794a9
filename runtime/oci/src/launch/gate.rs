//! Where the order to start comes from.

use std::io;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use berth_sys::seqpacket::{Listener, Socket};

use super::protocol::{Channel, ChildToParent, ParentToChild};
use super::{LaunchError, Stage};
use crate::record::{Record, Refused, Requested, Watch};

/// Where the child waits for the order to start.
#[derive(Debug)]
pub enum Gate {
    /// On the channel to its parent, which stays.
    Parent,
    /// On a path socket: the parent leaves after `create`, another process sends `start`.
    /// Takes the place of runc's exec fifo, and can carry back why execve failed.
    Socket(Listener),
}

impl Gate {
    /// A gate at `path` in a directory that only root can enter.
    pub fn at(path: &Path) -> io::Result<Gate> {
        Listener::bind(path).map(Gate::Socket)
    }

    /// The descriptor it waits on, if it is one of its own.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Gate::Parent => None,
            Gate::Socket(listener) => Some(listener.as_fd()),
        }
    }

    /// Waits for the order; returns the channel over which a failure of execve is reported.
    pub(crate) fn wait(self, parent: Channel) -> io::Result<Channel> {
        let channel = match self {
            Gate::Parent => parent,
            Gate::Socket(listener) => {
                let maker = parent.peer()?;
                match parent.recv::<ParentToChild>()? {
                    Some((ParentToChild::Leave, _)) => drop(parent),
                    _ => return Err(io::ErrorKind::BrokenPipe.into()),
                }
                Channel::over(accept_user(&listener, maker.uid)?)
            }
        };
        match channel.recv::<ParentToChild>()? {
            Some((ParentToChild::Start, _)) => Ok(channel),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Takes the connection of the user who made the container. In a user namespace its id reads as
/// that of every id which is not mapped; the socket's folder is its own anyway.
fn accept_user(listener: &Listener, uid: u32) -> io::Result<Socket> {
    loop {
        let socket = listener.accept()?;
        if socket.peer_cred()?.uid == uid {
            return Ok(socket);
        }
    }
}

/// Gives the order to start at the gate at `path`, and returns when the program was executed.
pub fn open_gate(path: &Path) -> Result<(), LaunchError> {
    let step = "open the start socket";
    let socket =
        Socket::connect(path).map_err(|e| LaunchError::from_io(Stage::AwaitStart, step, &e))?;
    order_start(&Channel::over(socket))
}

/// As [`open_gate`], for the process `pid` which waits there: it is compared with what was asked
/// before its program's first instruction, and killed if it differs.
///
/// # Errors
/// Those of [`open_gate`], and the differences found.
pub fn open_gate_verified(path: &Path, pid: i32, requested: Requested) -> Result<Record, Refused> {
    let step = "open the start socket";
    let watch = Watch::begin(pid, requested)?;
    let socket =
        Socket::connect(path).map_err(|e| LaunchError::from_io(Stage::AwaitStart, step, &e))?;
    order_verified(&Channel::over(socket), watch)
}

/// As [`order_start`], with the process under `watch`.
pub(crate) fn order_verified(channel: &Channel, mut watch: Watch) -> Result<Record, Refused> {
    let failed = |e: io::Error| LaunchError::from_io(Stage::AwaitStart, "order the start", &e);
    watch.at_barrier()?;
    channel.send(&ParentToChild::Start, &[]).map_err(failed)?;
    hear_of_execve(channel, Some(&watch))?;
    watch.finish()
}

/// Sends the order and waits for the end of the stream, which is the execve.
pub(crate) fn order_start(channel: &Channel) -> Result<(), LaunchError> {
    let failed = |e: io::Error| LaunchError::from_io(Stage::AwaitStart, "order the start", &e);
    channel.send(&ParentToChild::Start, &[]).map_err(failed)?;
    hear_of_execve(channel, None)
}

/// Hears the process out up to the execve; a watch passes on what it must meanwhile.
fn hear_of_execve(channel: &Channel, watch: Option<&Watch>) -> Result<(), LaunchError> {
    let failed = |e: io::Error| LaunchError::from_io(Stage::AwaitStart, "order the start", &e);
    let mut pipes = Vec::new();
    loop {
        if let Some(watch) = watch {
            watch.until_heard(channel)?;
        }
        match channel.recv::<ChildToParent>() {
            Ok(None) => return Ok(()),
            Ok(Some((ChildToParent::Listener(handover), fds))) => {
                pipes.push(handover.complete(fds)?);
            }
            Ok(Some((ChildToParent::Failed(error), _))) => return Err(error),
            Ok(Some((message, _))) => {
                let unexpected = format!("unexpected {message:?}");
                let step = "execute the program";
                return Err(LaunchError::refused(Stage::Exec, step, unexpected));
            }
            // The child ended with our order unread.
            Err(error) => return Err(failed(error)),
        }
    }
}
