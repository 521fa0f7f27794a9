//! [`Failure`]: why a verb failed, in words that engines recognise.
//!
//! containerd's shim looks for `does not exist`, `container not running` and `no such process` in
//! messages of `kill` and `delete`; podman for `does not exist` in those of `state`; docker and podman
//! choose exit code 126 or 127 by `permission denied`, `executable file not found` and `no such file
//! or directory`.

use std::io;

use berth_oci::cgroup::CgroupError;
use berth_oci::hooks::HookError;
use berth_oci::launch::LaunchError;
use berth_oci::spec::{LoadError, SpecErrors};
use berth_oci::state::{StateError, Status};
use std::process::ExitCode;

/// Why a verb failed, as the user reads it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The bundle's config.json cannot be loaded.
    #[error("{}", chain(.0))]
    Load(#[from] LoadError),
    /// The spec is wrong or asks for what is not supported.
    #[error("invalid spec: {0}")]
    Spec(#[from] SpecErrors),
    /// The container's state.
    #[error("{}", chain(.0))]
    State(#[from] StateError),
    /// Making the container or its process.
    #[error("unable to start container process: {0}")]
    Launch(#[from] LaunchError),
    /// Making a further process in a container: exit code 255 tells it from the process's own.
    #[error("exec failed: {0}")]
    Exec(Box<Failure>),
    /// A hook of the spec.
    #[error("{}", chain(.0))]
    Hook(#[from] HookError),
    /// The container's cgroup.
    #[error("{}", chain(.0))]
    Cgroup(#[from] CgroupError),
    /// The verb does not fit the container's status.
    #[error("{}", refusal(verb, id, *status))]
    WrongStatus {
        /// What was asked.
        verb: &'static str,
        /// Of which container.
        id: String,
        /// Its status.
        status: Status,
    },
    /// What this runtime does not do.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// Why not.
        reason: String,
    },
    /// An argument that means nothing.
    #[error("{0}")]
    Usage(String),
    /// A file of the host.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, with the object.
        action: String,
        /// Why.
        source: io::Error,
    },
}

impl Failure {
    /// The exit code engines expect: 255 from a failed exec, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Exec(_) => ExitCode::from(255),
            _ => ExitCode::FAILURE,
        }
    }

    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure::Io {
            action: action.into(),
            source,
        }
    }

    pub(super) fn wrong_status(verb: &'static str, id: &str, status: Status) -> Failure {
        Failure::WrongStatus {
            verb,
            id: id.to_owned(),
            status,
        }
    }
}

fn refusal(verb: &str, id: &str, status: Status) -> String {
    let is = status.as_str();
    match (verb, status) {
        ("resume", _) => format!("container not paused: `{id}` is {is}"),
        ("delete", _) => format!("cannot delete container `{id}` that is not stopped: {is}"),
        ("exec in", Status::Paused) => {
            format!("cannot exec in a paused container (use --ignore-paused to override): `{id}`")
        }
        ("exec in", _) => format!("container not running: cannot exec in `{id}`, it is {is}"),
        ("start", Status::Stopped) => {
            format!("cannot start a container that has stopped: `{id}`")
        }
        ("start", Status::Paused) => format!("cannot start a paused container: `{id}`"),
        ("start", _) => format!("cannot start an already running container: `{id}` is {is}"),
        _ => format!("container not running: cannot {verb} `{id}`, it is {is}"),
    }
}

/// An error with its causes, outermost first.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_recognise_what_they_look_for() {
        let stopped = |verb| Failure::wrong_status(verb, "a", Status::Stopped).to_string();
        assert!(stopped("kill").starts_with("container not running"));
        assert!(stopped("exec in").starts_with("container not running"));
        assert!(stopped("pause").starts_with("container not running"));
        let absent = Failure::from(StateError::NotFound("a".into())).to_string();
        assert_eq!(absent, "container does not exist: `a`");
        let missing = LaunchError::from_io(
            berth_oci::launch::Stage::Exec,
            "\"x\"",
            &io::Error::from_raw_os_error(libc::ENOENT),
        );
        assert_eq!(
            Failure::Exec(Box::new(missing.into())).to_string(),
            "exec failed: unable to start container process: exec: \"x\": ENOENT (no such file or directory)"
        );
    }
}
