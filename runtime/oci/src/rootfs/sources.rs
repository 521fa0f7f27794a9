//! What mounts take from the host, opened while the host's mounts are still visible.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::idmaps::MapNamespaces;
use crate::cgroup::Host;
use crate::launch::{At, LaunchError, Stage};
use crate::plan::{MountPlan, MountSource};

/// The opened source of one mount.
#[derive(Debug)]
pub(super) enum HostSource {
    /// A detached copy of a mount, its ids translated already.
    Tree(OwnedFd),
    /// A symbolic link that is to be made again, with its target (`copy-symlink`).
    Link(PathBuf),
}

impl HostSource {
    /// Its descriptor, if it is one.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            HostSource::Tree(tree) => Some(tree.as_fd()),
            HostSource::Link(_) => None,
        }
    }
}

/// Opens the sources of all mounts that have one on the host, in the order of `mounts`.
pub(super) fn open_all(
    mounts: &[MountPlan],
    maps: &MapNamespaces,
) -> Result<Vec<HostSource>, LaunchError> {
    let mut out = Vec::new();
    for plan in mounts {
        match &plan.source {
            MountSource::Bind { path, recursive } => {
                let source = open(plan, path, *recursive)?;
                if let HostSource::Tree(tree) = &source {
                    translate(plan, tree, maps)?;
                }
                out.push(source);
            }
            MountSource::Cgroup { own: false } => {
                let step = || "open the host's cgroup2 mount".to_owned();
                let host = Host::probe()
                    .map_err(|error| LaunchError::from_chain(Stage::Rootfs, step(), &error))?;
                let tree = mount::clone_path(&host.mount, false, true);
                out.push(HostSource::Tree(tree.at(Stage::Rootfs, step)?));
            }
            _ => {}
        }
    }
    Ok(out)
}

fn open(plan: &MountPlan, path: &Path, recursive: bool) -> Result<HostSource, LaunchError> {
    let step = || format!("open the bind source `{}`", path.display());
    if plan.extensions.copy_symlink
        && let Some(target) = link_target(path).at(Stage::Rootfs, step)?
    {
        return Ok(HostSource::Link(target));
    }
    let tree = mount::clone_path(path, recursive, true).at(Stage::Rootfs, step)?;
    Ok(HostSource::Tree(tree))
}

/// Where `path` leads, if it is a symbolic link; looked at and read through one descriptor.
fn link_target(path: &Path) -> io::Result<Option<PathBuf>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
    let target = target.into_string().map_err(|_| Errno::ILSEQ)?;
    Ok(Some(target.into()))
}

fn translate(plan: &MountPlan, tree: &OwnedFd, maps: &MapNamespaces) -> Result<(), LaunchError> {
    let Some(id_map) = &plan.extensions.id_map else {
        return Ok(());
    };
    let step = || format!("map the ids of `{}`", plan.target.display());
    let Some(namespace) = maps.of(id_map) else {
        let missing = "the container has no user namespace";
        return Err(LaunchError::refused(Stage::Rootfs, step(), missing));
    };
    mount::set_id_map(tree, namespace, id_map.recursive).at(Stage::Rootfs, step)
}
