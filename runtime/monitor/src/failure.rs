//! The one translation from what went wrong inside to [`Reply::Error`].

use std::error::Error;
use std::fmt::Write;

use serde_json::value::RawValue;

use crate::launcher::LaunchFailure;
use crate::protocol::{ErrorKind, Reply};
use crate::streams::AttachError;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The first message was not a Hello.
    #[error("the first request must be Hello")]
    NoHello,
    /// The versions do not meet.
    #[error("protocol version {0} is not spoken by this monitor")]
    Version(u32),
    /// The bytes are no request.
    #[error("cannot decode the request")]
    Decode(#[source] serde_json::Error),
    /// The connection belongs to a session, an attachment or a subscription.
    #[error("this connection takes no further requests")]
    Occupied,
    /// A wrong number of descriptors came along.
    #[error("{expected} descriptors must go along, not {found}")]
    Descriptors {
        /// How many the request wants.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// A field's value is not acceptable.
    #[error("{field}: {reason}")]
    Invalid {
        /// The request's field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No container of that id.
    #[error("no container `{0}`")]
    NoContainer(String),
    /// No such exec session.
    #[error("no exec session {0}")]
    NoSession(u64),
    /// The id is taken.
    #[error("container `{0}` exists already")]
    ContainerExists(String),
    /// The pod was started before.
    #[error("the pod is started already")]
    PodExists,
    /// The container has ended.
    #[error("container `{0}` is not running")]
    NotRunning(String),
    /// The container is still running.
    #[error("container `{0}` is running")]
    StillRunning(String),
    /// There is no terminal to resize.
    #[error("it has no terminal")]
    NoTerminal,
    /// A bound was reached.
    #[error("there are {0} {1} already")]
    TooMany(usize, &'static str),
    /// The monitor is shutting down.
    #[error("the pod is being shut down")]
    ShuttingDown,
    /// Processes remain although they were killed.
    #[error("processes do not end although killed: {0}")]
    DoesNotEnd(String),
    /// The container could not be started.
    #[error("cannot start")]
    Launch(#[source] LaunchFailure),
    /// The client could not be attached.
    #[error("cannot attach")]
    Attach(#[source] AttachError),
    /// Something else that the system refused.
    #[error("cannot {step}")]
    System {
        /// What was tried.
        step: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl RequestError {
    /// A value that is not acceptable.
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoHello | Self::Decode(_) | Self::Occupied | Self::Descriptors { .. } => {
                ErrorKind::Protocol
            }
            Self::Version(_) => ErrorKind::UnsupportedVersion,
            Self::Invalid { .. } | Self::NoTerminal | Self::StillRunning(_) => ErrorKind::Invalid,
            Self::NoContainer(_) | Self::NoSession(_) => ErrorKind::NotFound,
            Self::ContainerExists(_) | Self::PodExists => ErrorKind::AlreadyExists,
            Self::NotRunning(_) | Self::ShuttingDown => ErrorKind::NotRunning,
            Self::TooMany(..) => ErrorKind::TooMany,
            Self::Launch(failure) if failure.is_invalid() => ErrorKind::Invalid,
            Self::Launch(_) => ErrorKind::Launch,
            Self::Attach(AttachError::Ended | AttachError::NoStdin) => ErrorKind::NotRunning,
            Self::Attach(AttachError::TooMany) => ErrorKind::TooMany,
            Self::Attach(AttachError::Descriptor { .. }) => ErrorKind::Invalid,
            Self::System { .. } | Self::DoesNotEnd(_) => ErrorKind::System,
        }
    }

    fn record(&self) -> Option<&RawValue> {
        match self {
            Self::Launch(failure) => failure.record(),
            _ => None,
        }
    }

    /// The reply, with the whole chain of causes as its message.
    pub fn reply(&self) -> Reply {
        Reply::Error {
            code: self.kind(),
            message: chain(self),
            record: self.record().map(ToOwned::to_owned),
        }
    }
}

/// An error and all its causes, joined by `: `.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
