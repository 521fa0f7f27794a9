//! Sessions that a gRPC call has allowed and a stream has not yet taken.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::container::exec::Command;
use crate::id::{ContainerId, SandboxId};

/// How long a token is good for.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// Most tokens out at once; a client that never comes must not fill the memory.
const MOST: usize = 1000;

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// Execute a command.
    Exec {
        /// Where.
        container: ContainerId,
        /// What.
        command: Command,
        /// With which streams.
        streams: Streams,
    },
    /// Join a container's own streams.
    Attach {
        /// Whose.
        container: ContainerId,
        /// Which.
        streams: Streams,
    },
    /// Connect to ports of a pod.
    PortForward {
        /// Which pod.
        sandbox: SandboxId,
    },
}

/// The streams of an exec or attach session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output, or all output of a terminal.
    pub stdout: bool,
    /// Standard error; never with a terminal.
    pub stderr: bool,
    /// A terminal, with a stream for its size.
    pub tty: bool,
}

/// There are too many sessions nobody has come for.
#[derive(Debug, thiserror::Error)]
#[error("too many streaming sessions wait for their clients")]
pub struct TooManySessions;

/// Sessions by token.
pub struct Sessions {
    address: SocketAddr,
    waiting: Mutex<HashMap<String, (Session, Instant)>>,
}

impl Sessions {
    /// No session; `address` is where the streaming server listens.
    pub fn new(address: SocketAddr) -> Self {
        Sessions {
            address,
            waiting: Mutex::default(),
        }
    }

    /// Allows `session` to one client, once; the URL to give it.
    pub fn allow(&self, session: Session) -> Result<String, TooManySessions> {
        let kind = match session {
            Session::Exec { .. } => "exec",
            Session::Attach { .. } => "attach",
            Session::PortForward { .. } => "portforward",
        };
        let token = uuid::Uuid::new_v4().simple().to_string();
        let mut waiting = self.lock();
        waiting.retain(|_, (_, since)| since.elapsed() < GOOD_FOR);
        if waiting.len() >= MOST {
            return Err(TooManySessions);
        }
        waiting.insert(token.clone(), (session, Instant::now()));
        Ok(format!("http://{}/{kind}/{token}", self.address))
    }

    /// The session of the URL path `/<kind>/<token>`, which is used up.
    pub fn take(&self, path: &str) -> Option<Session> {
        let token = path.rsplit('/').next()?;
        let (session, since) = self.lock().remove(token)?;
        (since.elapsed() < GOOD_FOR).then_some(session)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Session, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_serves_once() {
        let sessions = Sessions::new(([127, 0, 0, 1], 8).into());
        let session = Session::PortForward {
            sandbox: SandboxId::random(),
        };
        let url = sessions.allow(session.clone()).unwrap();
        let path = url.strip_prefix("http://127.0.0.1:8").unwrap();
        assert!(path.starts_with("/portforward/"));
        assert_eq!(sessions.take(path), Some(session));
        assert_eq!(sessions.take(path), None);
        assert_eq!(sessions.take("/exec/"), None);
    }

    #[test]
    fn tokens_nobody_takes_are_bounded() {
        let sessions = Sessions::new(([127, 0, 0, 1], 8).into());
        let allow = || {
            sessions.allow(Session::PortForward {
                sandbox: SandboxId::random(),
            })
        };
        for _ in 0..MOST {
            allow().unwrap();
        }
        assert!(allow().is_err());
    }
}
