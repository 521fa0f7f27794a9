//! subPath: a part of a volume as a mount of its own.
//!
//! The volume's content belongs to the containers, which may swap any directory for a link
//! at any moment (CVE-2021-25741, CVE-2017-1002101). So every step is taken from a
//! descriptor with `RESOLVE_BENEATH`, and what is mounted is the descriptor, not a path.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::actual::{IoStep, is_mount_point};

/// Why a part of a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum SubPathError {
    /// `subPathExpr` names a variable that the container does not have.
    #[error("subPathExpr: variable `{0}` is not set")]
    UnknownVariable(String),
    /// Not a relative path, or one with `..`.
    #[error("subPath `{0}` must be a relative path without `..`")]
    NotRelative(String),
    /// The path leads out of the volume.
    #[error("subPath `{0}` leads out of the volume")]
    Outside(String),
    /// One step on the disk failed.
    #[error(transparent)]
    Io(#[from] IoStep),
}

/// Mounts `sub_path` of the volume at `root` on `at`; a directory that is not there is
/// made. What was mounted on `at` before is taken off.
///
/// # Errors
/// When the path leads out of the volume or a step fails.
pub fn bind(root: &Path, sub_path: &str, at: &Path) -> Result<(), SubPathError> {
    let path = Path::new(sub_path);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain || sub_path.is_empty() {
        return Err(SubPathError::NotRelative(sub_path.to_owned()));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let volume = rustix::fs::open(root, flags, Mode::empty()).map_err(IoStep::on("open", root))?;
    let part = open_or_make(&volume, root, path)?;
    let is_dir = File::from(part.try_clone().map_err(IoStep::on("open", root))?)
        .metadata()
        .map_err(IoStep::on("look at", root))?
        .is_dir();
    prepare(at, is_dir)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&part, "", flags).map_err(IoStep::on("clone", root))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", rustix::fs::CWD, at, flags).map_err(IoStep::on("mount on", at))?;
    Ok(())
}

/// Opens one path below `dir`; links are followed as long as they stay below it.
fn beneath(dir: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    loop {
        match openat2(&dir, path, flags, Mode::empty(), within) {
            // Something was renamed meanwhile: the kernel cannot tell whether it escaped.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn open_or_make(volume: &OwnedFd, root: &Path, path: &Path) -> Result<OwnedFd, SubPathError> {
    let failed = |step, path: &Path, errno| match errno {
        Errno::XDEV => SubPathError::Outside(path.display().to_string()),
        errno => IoStep::new(step, root.join(path), errno).into(),
    };
    match beneath(volume, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(|errno| failed("open", path, errno)),
    }
    let mode = std::fs::metadata(root).map_err(IoStep::on("look at", root))?;
    let mut walked = PathBuf::new();
    for step in path.components() {
        let parent = match walked.as_os_str().is_empty() {
            true => volume.try_clone().map_err(IoStep::on("open", root))?,
            false => beneath(volume, &walked, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(|errno| failed("open", &walked, errno))?,
        };
        walked.push(step);
        match rustix::fs::mkdirat(&parent, step.as_os_str(), Mode::from(0o700)) {
            Err(Errno::EXIST) => continue,
            other => other.map_err(|errno| failed("make", &walked, errno))?,
        }
        // As the volume's own directory is: whoever may write there may write here.
        let made = beneath(
            &parent,
            Path::new(step.as_os_str()),
            OFlags::RDONLY | OFlags::NOFOLLOW,
        );
        let made = File::from(made.map_err(|errno| failed("open", &walked, errno))?);
        let give = || {
            std::os::unix::fs::fchown(&made, None, Some(mode.gid()))?;
            made.set_permissions(std::fs::Permissions::from_mode(mode.mode() & 0o7777))
        };
        give().map_err(IoStep::on("hand over", &root.join(&walked)))?;
    }
    beneath(volume, path, OFlags::PATH).map_err(|errno| failed("open", path, errno))
}

/// An unmounted place of the right type.
fn prepare(at: &Path, is_dir: bool) -> Result<(), IoStep> {
    while at.symlink_metadata().is_ok() && is_mount_point(at)? {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        unmount(at, flags).map_err(IoStep::on("unmount", at))?;
    }
    match at.symlink_metadata() {
        Ok(seen) if seen.is_dir() == is_dir => return Ok(()),
        Ok(seen) if seen.is_dir() => std::fs::remove_dir(at).map_err(IoStep::on("remove", at))?,
        Ok(_) => std::fs::remove_file(at).map_err(IoStep::on("remove", at))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(IoStep::new("look at", at, error)),
    }
    let parent = at.parent().unwrap_or(at);
    std::fs::create_dir_all(parent).map_err(IoStep::on("make", parent))?;
    if is_dir {
        std::fs::create_dir(at).map_err(IoStep::on("make", at))
    } else {
        File::create_new(at)
            .map(drop)
            .map_err(IoStep::on("make", at))
    }
}
