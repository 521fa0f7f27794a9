//! [`LaunchError`]: what failed, where, and the kernel's reason, as it crosses from child to parent.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// The part of a launch in which something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// In the parent, before or while cloning.
    Clone,
    /// The container's cgroup.
    Cgroup,
    /// Joining namespaces and setting what belongs to them.
    Join,
    /// Assembling the root file system.
    Rootfs,
    /// Giving up privilege.
    Confine,
    /// Waiting for the order to start.
    AwaitStart,
    /// Executing the program.
    Exec,
    /// Running a hook.
    Hook,
    /// Comparing the sandbox with what was asked.
    Verify,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Clone => "clone",
            Stage::Cgroup => "cgroup",
            Stage::Join => "join",
            Stage::Rootfs => "rootfs",
            Stage::Confine => "confine",
            Stage::AwaitStart => "await start",
            Stage::Exec => "exec",
            Stage::Hook => "hook",
            Stage::Verify => "verify",
        })
    }
}

/// Why a launch failed: ``rootfs: mount `proc` on `/proc`: EPERM (operation not permitted)``.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchError {
    /// In which part.
    pub stage: Stage,
    /// Doing what, with the object's name.
    pub step: String,
    /// The kernel's error number, where there is one.
    pub errno: Option<i32>,
    /// More, where the number does not say it all; may be empty.
    pub detail: String,
}

impl LaunchError {
    /// A failure with the kernel's reason.
    pub fn from_io(stage: Stage, step: impl Into<String>, error: &io::Error) -> LaunchError {
        let errno = error.raw_os_error();
        let detail = if errno.is_some() {
            String::new()
        } else {
            error.to_string()
        };
        LaunchError {
            stage,
            step: step.into(),
            errno,
            detail,
        }
    }

    /// A failure of another module, with its chain of causes; the innermost number is kept.
    pub fn from_chain(
        stage: Stage,
        step: impl Into<String>,
        error: &dyn std::error::Error,
    ) -> LaunchError {
        let mut detail = error.to_string();
        let mut errno = None;
        let mut cause = error.source();
        while let Some(inner) = cause {
            match inner
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
            {
                Some(number) => errno = Some(number),
                None => detail = format!("{detail}: {inner}"),
            }
            cause = inner.source();
        }
        LaunchError {
            stage,
            step: step.into(),
            errno,
            detail,
        }
    }

    /// A failure that berth itself found.
    pub fn refused(
        stage: Stage,
        step: impl Into<String>,
        detail: impl Into<String>,
    ) -> LaunchError {
        LaunchError {
            stage,
            step: step.into(),
            errno: None,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.step)?;
        if let Some(errno) = self.errno {
            let errno = nix::errno::Errno::from_raw(errno);
            write!(f, ": {errno:?} ({})", lower_first(errno.desc()))?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// Engines look for the texts as Go prints them: `no such file or directory`, `permission denied`.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    let second_is_small = text.chars().nth(1).is_none_or(|c| !c.is_ascii_uppercase());
    match letters.next() {
        Some(first) if second_is_small => first.to_ascii_lowercase().to_string() + letters.as_str(),
        _ => text.to_owned(),
    }
}

impl std::error::Error for LaunchError {}

impl From<io::Error> for LaunchError {
    /// Of the user namespace, the one thing whose making calls back with other errors.
    fn from(error: io::Error) -> LaunchError {
        LaunchError::from_io(Stage::Join, "make the user namespace", &error)
    }
}

/// Puts stage and step on the failure of a system call.
pub(crate) trait At<T> {
    /// `step` names the action and its object; it is only made on failure.
    fn at(self, stage: Stage, step: impl FnOnce() -> String) -> Result<T, LaunchError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, stage: Stage, step: impl FnOnce() -> String) -> Result<T, LaunchError> {
        self.map_err(|error| LaunchError::from_io(stage, step(), &error.into()))
    }
}
