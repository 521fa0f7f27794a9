//! The daemon's end of the protocol: blocking calls on one connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_sys::seqpacket::Socket;
use serde_json::value::RawValue;

use crate::protocol::{ErrorKind, Event, OLDEST_VERSION, Reply, Request, VERSION};

/// A connection to a monitor that has passed the Hello.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    version: u32,
    monitor_pid: i32,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there, or the path is wrong.
    #[error("cannot connect to the monitor at `{path}`")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The request could not be sent.
    #[error("cannot send to the monitor")]
    Send(#[source] io::Error),
    /// No reply could be received.
    #[error("cannot receive from the monitor")]
    Receive(#[source] io::Error),
    /// The monitor lives and does not answer.
    #[error("the monitor does not answer")]
    Unanswered,
    /// The monitor closed the connection: it has ended, or refuses this peer.
    #[error("the monitor closed the connection")]
    Closed,
    /// The request could not be written as JSON.
    #[error("cannot encode the request")]
    Encode(#[source] serde_json::Error),
    /// The reply is not one of the protocol.
    #[error("cannot decode the monitor's reply")]
    Decode(#[source] serde_json::Error),
    /// The monitor speaks a version that this release does not.
    #[error("the monitor speaks protocol version {0}, not one of {OLDEST_VERSION} to {VERSION}")]
    Version(u32),
    /// A reply that does not answer the request.
    #[error("the monitor answered out of order: {0}")]
    Unexpected(String),
    /// The monitor refused.
    #[error("{message}")]
    Refused {
        /// What kind of failure.
        code: ErrorKind,
        /// The monitor's own words.
        message: String,
        /// The sandbox record of a refused start.
        record: Option<Box<RawValue>>,
    },
}

impl CallError {
    /// The monitor's failure kind, when it answered with one.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// True when the monitor itself is gone or unreachable, so that asking again on this connection is no use.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Closed | Self::Send(_) => true,
            Self::Receive(source) => source.kind() != io::ErrorKind::WouldBlock,
            _ => false,
        }
    }
}

impl Connection {
    /// Connects to the socket `path` and says Hello.
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        Self::greet(path, Socket::connect(path))
    }

    /// As [`Connection::connect`]; a monitor that then takes longer than `patience` for anything is
    /// [`CallError::Unanswered`].
    pub fn connect_within(path: &Path, patience: Duration) -> Result<Self, CallError> {
        Self::greet(path, Socket::connect_within(path, patience))
    }

    fn greet(path: &Path, socket: io::Result<Socket>) -> Result<Self, CallError> {
        let socket = socket.map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => CallError::Unanswered,
            _ => CallError::Connect {
                path: path.to_path_buf(),
                source,
            },
        })?;
        let mut connection = Self {
            socket,
            version: 0,
            monitor_pid: 0,
        };
        let (reply, _) = connection.call(&Request::Hello { version: VERSION }, &[])?;
        let Reply::Hello { version, pid } = reply else {
            return Err(unexpected(&reply));
        };
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(CallError::Version(version));
        }
        connection.version = version;
        connection.monitor_pid = pid;
        Ok(connection)
    }

    /// Sends `request` with `fds` and waits for its reply; [`Reply::Error`] comes as [`CallError::Refused`].
    pub fn call(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let bytes = serde_json::to_vec(request).map_err(CallError::Encode)?;
        let in_time = |error: CallError| match &error {
            CallError::Send(source) | CallError::Receive(source)
                if source.kind() == io::ErrorKind::WouldBlock =>
            {
                CallError::Unanswered
            }
            _ => error,
        };
        let sent = self.socket.send(&bytes, fds).map_err(CallError::Send);
        sent.and_then(|()| self.next_reply()).map_err(in_time)
    }

    /// Waits for the next message of an exec session, an attachment or a subscription. On a non-blocking
    /// connection the error is [`CallError::Receive`] of kind `WouldBlock` when there is none.
    pub fn next_reply(&mut self) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let (bytes, fds) = self
            .socket
            .recv()
            .map_err(CallError::Receive)?
            .ok_or(CallError::Closed)?;
        match serde_json::from_slice(&bytes).map_err(CallError::Decode)? {
            Reply::Error {
                code,
                message,
                record,
            } => Err(CallError::Refused {
                code,
                message,
                record,
            }),
            reply => Ok((reply, fds)),
        }
    }

    /// Waits for the next event of a subscription.
    pub fn next_event(&mut self) -> Result<Event, CallError> {
        match self.next_reply()?.0 {
            Reply::Event(event) => Ok(event),
            other => Err(unexpected(&other)),
        }
    }

    /// The protocol version that the monitor speaks.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The monitor's process id, as it told it.
    #[must_use]
    pub fn monitor_pid(&self) -> i32 {
        self.monitor_pid
    }

    /// Makes receiving return at once when there is nothing; for use behind a readiness loop.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.socket.set_nonblocking(on)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn unexpected(reply: &Reply) -> CallError {
    let mut shown = format!("{reply:?}");
    shown.truncate(shown.floor_char_boundary(200));
    CallError::Unexpected(shown)
}
