//! The one map from this server's errors to gRPC status codes. Every match is exhaustive:
//! a new error must be given its code here.

use std::sync::Arc;

use berth_image::{PullError, ReferenceError, RemoveError};
use berth_monitor::client::CallError;
use tonic::{Code, Status};

use crate::audit::AuditError;
use crate::container::create::CreateContainerError;
use crate::container::end::EndContainerError;
use crate::container::exec::ExecError;
use crate::container::oci_spec::SpecError;
use crate::container::remove::RemoveContainerError;
use crate::container::start::StartContainerError;
use crate::container::update::UpdateContainerError;
use crate::events::ResumeError;
use crate::image::AuthError;
use crate::monitor::MonitorError;
use crate::sandbox::create::CreateSandboxError;
use crate::sandbox::remove::RemoveSandboxError;
use crate::sandbox::stop::StopSandboxError;
use crate::store::FindError;
use crate::streaming::TooManySessions;

/// An error with its causes, each after a colon, as people read it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // An error that shows its source in its own text is not repeated.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// An error that has a gRPC code.
pub trait Coded: std::error::Error {
    /// Its code.
    fn code(&self) -> Code;
}

/// The status of an error: its code, and its text with all causes.
pub fn of<E: Coded + 'static>(error: &E) -> Status {
    Status::new(error.code(), chain(error))
}

/// [`of`] for `map_err`.
pub fn from<E: Coded + 'static>(error: E) -> Status {
    of(&error)
}

/// [`of`] for the result of a joined operation.
pub fn shared<E: Coded + 'static>(error: Arc<E>) -> Status {
    of(&*error)
}

/// An RPC that this version does not have.
pub fn unimplemented(rpc: &str) -> Status {
    Status::unimplemented(format!("{rpc} is not implemented"))
}

/// A field of a request that makes no sense.
pub fn invalid(field: &str, reason: &str) -> Status {
    Status::invalid_argument(format!("{field}: {reason}"))
}

/// The operation's task ended without an outcome.
pub fn lost() -> Status {
    Status::internal("the operation ended without an outcome")
}

impl Coded for AuditError {
    fn code(&self) -> Code {
        match self {
            AuditError::Open(_) | AuditError::Append(_) | AuditError::Record(_) => {
                Code::FailedPrecondition
            }
            AuditError::ShuttingDown => Code::Unavailable,
        }
    }
}

impl Coded for FindError {
    fn code(&self) -> Code {
        match self {
            FindError::Unknown { .. } => Code::NotFound,
            FindError::Ambiguous { .. } => Code::InvalidArgument,
        }
    }
}

impl Coded for MonitorError {
    fn code(&self) -> Code {
        match self {
            MonitorError::Call(CallError::Unanswered) => Code::DeadlineExceeded,
            MonitorError::Call(_)
            | MonitorError::Unexpected
            | MonitorError::Spawn { .. }
            | MonitorError::Refused(_)
            | MonitorError::Watch(_) => Code::Internal,
            MonitorError::NotReady => Code::DeadlineExceeded,
            MonitorError::ShuttingDown => Code::Unavailable,
        }
    }
}

impl Coded for CreateSandboxError {
    fn code(&self) -> Code {
        match self {
            CreateSandboxError::Invalid { .. } => Code::InvalidArgument,
            CreateSandboxError::Unsupported { .. } => Code::Unimplemented,
            CreateSandboxError::NoRuntime(_) => Code::NotFound,
            CreateSandboxError::NameTaken { .. } => Code::AlreadyExists,
            CreateSandboxError::Monitor(error) => error.code(),
            CreateSandboxError::Record(_)
            | CreateSandboxError::Shm(_)
            | CreateSandboxError::Cgroup(_)
            | CreateSandboxError::Network(_) => Code::Internal,
            CreateSandboxError::Removed => Code::Aborted,
        }
    }
}

impl Coded for StopSandboxError {
    fn code(&self) -> Code {
        match self {
            StopSandboxError::Container(error) => error.code(),
            StopSandboxError::Network(_)
            | StopSandboxError::Cgroup(_)
            | StopSandboxError::Shm(_)
            | StopSandboxError::Record(_) => Code::Internal,
            StopSandboxError::ShuttingDown => Code::Unavailable,
        }
    }
}

impl Coded for RemoveSandboxError {
    fn code(&self) -> Code {
        match self {
            RemoveSandboxError::Stop(error) => error.code(),
            RemoveSandboxError::Container(error) => error.code(),
            RemoveSandboxError::Record(_) => Code::Internal,
        }
    }
}

impl Coded for CreateContainerError {
    fn code(&self) -> Code {
        match self {
            CreateContainerError::Invalid { .. }
            | CreateContainerError::UserSpec(_)
            | CreateContainerError::User(_)
            | CreateContainerError::MountSource { .. } => Code::InvalidArgument,
            CreateContainerError::Spec(error) => error.code(),
            CreateContainerError::NotReady { .. } => Code::FailedPrecondition,
            CreateContainerError::NameTaken { .. } => Code::AlreadyExists,
            CreateContainerError::NoImage(_) => Code::NotFound,
            CreateContainerError::Snapshot(_) | CreateContainerError::Record(_) => Code::Internal,
            CreateContainerError::Removed => Code::Aborted,
        }
    }
}

impl Coded for SpecError {
    fn code(&self) -> Code {
        match self {
            SpecError::Unsupported { .. } => Code::Unimplemented,
            SpecError::Invalid { .. } | SpecError::NoCommand | SpecError::Seccomp { .. } => {
                Code::InvalidArgument
            }
        }
    }
}

impl Coded for StartContainerError {
    fn code(&self) -> Code {
        match self {
            StartContainerError::NotCreated { .. } | StartContainerError::SandboxNotReady => {
                Code::FailedPrecondition
            }
            StartContainerError::Launch(error) => error.code(),
            StartContainerError::Audit(error) => error.code(),
            StartContainerError::Log(_) | StartContainerError::Record(_) => Code::Internal,
        }
    }
}

impl Coded for EndContainerError {
    fn code(&self) -> Code {
        match self {
            EndContainerError::Signal { source, .. } => source.code(),
            EndContainerError::Stuck { .. } => Code::DeadlineExceeded,
            EndContainerError::ShuttingDown => Code::Unavailable,
        }
    }
}

impl Coded for RemoveContainerError {
    fn code(&self) -> Code {
        match self {
            RemoveContainerError::End(error) => error.code(),
            RemoveContainerError::Snapshot(_)
            | RemoveContainerError::Cgroup(_)
            | RemoveContainerError::Record(_) => Code::Internal,
        }
    }
}

impl Coded for UpdateContainerError {
    fn code(&self) -> Code {
        match self {
            UpdateContainerError::Ended | UpdateContainerError::NotEnforced(_) => {
                Code::FailedPrecondition
            }
            UpdateContainerError::Limits(_) => Code::InvalidArgument,
            UpdateContainerError::Cgroup(_)
            | UpdateContainerError::Differ(_)
            | UpdateContainerError::Record(_) => Code::Internal,
            UpdateContainerError::Audit(error) => error.code(),
            UpdateContainerError::ShuttingDown => Code::Unavailable,
        }
    }
}

impl Coded for ExecError {
    fn code(&self) -> Code {
        match self {
            ExecError::NoCommand => Code::InvalidArgument,
            ExecError::NotRunning => Code::FailedPrecondition,
            ExecError::Record(_) | ExecError::Pipe(_) => Code::Internal,
            ExecError::Monitor(error) => error.code(),
            ExecError::Audit(error) => error.code(),
            ExecError::TimedOut(_) => Code::DeadlineExceeded,
            ExecError::TooMuchOutput => Code::ResourceExhausted,
        }
    }
}

impl Coded for TooManySessions {
    fn code(&self) -> Code {
        Code::ResourceExhausted
    }
}

impl Coded for ResumeError {
    fn code(&self) -> Code {
        Code::OutOfRange
    }
}

impl Coded for ReferenceError {
    fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

impl Coded for AuthError {
    fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

impl Coded for RemoveError {
    fn code(&self) -> Code {
        Code::Internal
    }
}

impl Coded for PullError {
    /// The kubelet shows the text; of the codes it only asks whether to try again.
    fn code(&self) -> Code {
        if self.is_retryable() {
            Code::Unavailable
        } else {
            Code::NotFound
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_code_and_all_causes() {
        let cause = CreateContainerError::Spec(crate::container::oci_spec::SpecError::NoCommand);
        let status = of(&cause);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "cannot make the configuration of the container: no command specified"
        );
        assert_eq!(
            unimplemented("CheckpointPod").message(),
            "CheckpointPod is not implemented"
        );
    }
}
