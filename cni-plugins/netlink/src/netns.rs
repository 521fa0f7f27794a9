//! Work inside a network namespace, without ever moving the caller's thread.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

/// A namespace that cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It is gone, or not a path.
    #[error("cannot open the network namespace `{path}`")]
    Open {
        /// The path given.
        path: String,
        /// The cause.
        #[source]
        errno: Errno,
    },
    /// The kernel refused to enter it.
    #[error("cannot enter the network namespace")]
    Enter(#[source] Errno),
    /// No thread could be made.
    #[error("cannot start a thread to enter the network namespace")]
    Thread(#[source] std::io::Error),
}

impl NetnsError {
    /// Whether the namespace does not exist any more.
    pub fn is_gone(&self) -> bool {
        matches!(self, NetnsError::Open { errno, .. } if *errno == Errno::NOENT || *errno == Errno::SRCH)
    }
}

/// Opens a network namespace by its path.
///
/// # Errors
/// [`NetnsError::Open`].
pub fn open(path: &Path) -> Result<OwnedFd, NetnsError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        NetnsError::Open {
            path: path.display().to_string(),
            errno,
        }
    })
}

/// Runs `work` inside the namespace on a thread of its own, which ends with it:
/// no thread that entered a namespace is ever used again.
///
/// # Errors
/// The namespace cannot be entered.
///
/// # Panics
/// When `work` panics.
pub fn run_in<T: Send>(
    netns: impl AsFd + Sync,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, || {
                rustix::thread::move_into_link_name_space(
                    netns.as_fd(),
                    Some(LinkNameSpaceType::Network),
                )
                .map_err(NetnsError::Enter)?;
                Ok(work())
            })
            .map_err(NetnsError::Thread)?;
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
