//! The pod's `/dev/shm`: a tmpfs of its own that all its containers see.

use std::io;
use std::path::{Path, PathBuf};

use berth_sys::mount::{FsContext, attach, attr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

/// Its place in the sandbox's directory.
pub const NAME: &str = "shm";
/// What pods have under containerd and Docker.
const SIZE: &str = "64m";

/// Why a pod's `/dev/shm` is not there, or still is.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// The tmpfs cannot be mounted.
    #[error("cannot mount a tmpfs on `{path}`")]
    Mount {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The tmpfs cannot be unmounted.
    #[error("cannot unmount `{path}`")]
    Unmount {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Mounts it in the sandbox's directory `dir`.
pub fn mount(dir: &Path) -> Result<(), ShmError> {
    let path = dir.join(NAME);
    mount_at(&path).map_err(|source| ShmError::Mount { path, source })
}

fn mount_at(path: &Path) -> io::Result<()> {
    let context = FsContext::open("tmpfs")?;
    context.set("source", "shm")?;
    context.set("size", SIZE)?;
    context.set("mode", "1777")?;
    let made = context.mount(attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    let target = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(made, target)
}

/// Unmounts it, also from under processes that have it open; it may be gone already.
pub fn unmount(dir: &Path) -> Result<(), ShmError> {
    let path = dir.join(NAME);
    match rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not a mount point, or no such directory.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(ShmError::Unmount {
            path,
            source: errno.into(),
        }),
    }
}
