//! Applies a layer's archive inside one directory.
//!
//! Each layer is applied on its own, without those below it; what it says about them (whiteouts,
//! opaque directories) is written as overlayfs reads it. Directories the archive uses but does not
//! describe, and hard links to files it does not have, are reported to [`super::merged`], which
//! completes them from the layers below.
//!
//! Invariant: no operation names a path; all take a directory descriptor of [`Tree`] and one last
//! component that is never followed.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use super::archive::{Archive, ArchiveError, Kind, Member};
use super::tree::{self, Tree, TreePath, c_name};
use super::whiteout::{self, Marker};

/// Bytes moved per read from the archive to a file.
const COPY_BUFFER: usize = 256 << 10;
/// Granularity in which disk use is counted.
const PAGE: u64 = 4096;
/// XATTR_SIZE_MAX of Linux.
const MAX_XATTR: usize = 64 << 10;

/// Why a layer cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive is unreadable.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The layer asks for something no layer may do.
    #[error("layer entry `{path}` refused: {reason}")]
    Refused {
        /// The entry.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The layer has too many entries.
    #[error("the layer has more than {0} entries")]
    TooManyEntries(u64),
    /// The file system refused.
    #[error("cannot {step} `{path}` of the layer: {cause}")]
    Write {
        /// What was done.
        step: &'static str,
        /// To which entry.
        path: String,
        /// The cause.
        cause: io::Error,
    },
}

/// What is left to do once the layers below are known.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Directories made without being described; the empty path is the root.
    pub implicit: BTreeSet<TreePath>,
    /// Hard links whose target is not in this layer: target, then place.
    pub links: Vec<(TreePath, TreePath)>,
    /// Whether the layer hides everything below it.
    pub opaque_root: bool,
    /// Bytes on disk, each file rounded up to a page.
    pub bytes: u64,
    /// Inodes made.
    pub inodes: u64,
    /// Times to be set when nothing is written into the directories any more.
    times: Vec<(TreePath, (i64, u32))>,
}

/// Applies `archive` to the empty directory `tree`.
pub(crate) fn apply(
    archive: &mut Archive<impl Read>,
    tree: &Tree,
    max_entries: u64,
) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    applied.implicit.insert(TreePath::root());
    let mut unpacker = Unpacker {
        tree,
        applied,
        parent: None,
        buffer: vec![0; COPY_BUFFER],
    };
    let mut entries = 0;
    while let Some(member) = archive.next()? {
        entries += 1;
        if entries > max_entries {
            return Err(ApplyError::TooManyEntries(max_entries));
        }
        unpacker.member(&member, archive)?;
    }
    archive.drain()?;
    Ok(unpacker.applied)
}

impl Applied {
    /// Sets the times of directories, the last step: children first.
    pub fn set_times(&self, tree: &Tree) -> Result<(), ApplyError> {
        for (path, mtime) in self.times.iter().rev() {
            let failed = |cause| write_error("set the time of", path, cause);
            // A later entry may have put something else there.
            match tree.dir_without_links(path) {
                Ok(dir) => {
                    rustix::fs::futimens(&dir, &timestamps(*mtime))
                        .map_err(|e| failed(e.into()))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

struct Unpacker<'a> {
    tree: &'a Tree,
    applied: Applied,
    /// The last parent opened; forgotten whenever something is removed.
    parent: Option<(TreePath, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn member(&mut self, member: &Member, data: &mut impl Read) -> Result<(), ApplyError> {
        let refused = |reason| refuse(&member.path, reason);
        let path = TreePath::parse(&member.path).ok_or_else(|| refused("its path has `..`"))?;
        let Some((parent, name)) = path.split() else {
            if member.kind != Kind::Directory {
                return Err(refused("it would replace the root"));
            }
            return self.describe_dir(&path, self.tree.root(), member);
        };
        match whiteout::marker(name) {
            Marker::None => {}
            Marker::Malformed => return Err(refused("it is a whiteout of no name")),
            Marker::Bookkeeping => return Ok(()),
            Marker::Opaque => return self.opaque(&parent),
            Marker::Hide(hidden) => return self.hide(&parent, hidden),
        }
        if parent.components().any(whiteout::is_reserved) {
            return if parent
                .components()
                .any(|c| whiteout::marker(c) == Marker::Bookkeeping)
            {
                Ok(())
            } else {
                Err(refused("it lies below a whiteout"))
            };
        }
        if member.kind == Kind::CharDevice && member.device == (0, 0) {
            return self.hide(&parent, name);
        }
        self.place(&path, &parent, name, member, data)
    }

    fn opaque(&mut self, parent: &TreePath) -> Result<(), ApplyError> {
        if parent.is_root() {
            self.applied.opaque_root = true;
            return Ok(());
        }
        let dir = self.physical_parent(parent)?;
        whiteout::make_opaque(&dir).map_err(|e| write_error("make opaque", parent, e))
    }

    fn hide(&mut self, parent: &TreePath, name: &[u8]) -> Result<(), ApplyError> {
        let path = parent.join(name);
        let failed = |cause| write_error("hide", &path, cause);
        let dir = self.physical_parent(parent)?;
        whiteout::hide(dir.as_fd(), &c_name(name).map_err(failed)?).map_err(failed)
    }

    /// The directory of a whiteout, made if need be. Through a symlink it would speak of another
    /// directory than it names.
    fn physical_parent(&mut self, parent: &TreePath) -> Result<OwnedFd, ApplyError> {
        let implicit = &mut self.applied.implicit;
        let made = |path| {
            implicit.insert(path);
        };
        self.tree
            .ensure_dir(parent, made)
            .and_then(|_| self.tree.dir_without_links(parent))
            .map_err(|cause| write_error("open the directory", parent, cause))
    }

    fn place(
        &mut self,
        path: &TreePath,
        parent: &TreePath,
        name: &[u8],
        member: &Member,
        data: &mut impl Read,
    ) -> Result<(), ApplyError> {
        let failed = |step| move |cause: io::Error| write_error(step, path, cause);
        let dir = self.open_parent(parent)?;
        let name = c_name(name).map_err(failed("name"))?;
        let link = match member.kind {
            Kind::HardLink => Some(self.link_target(path, member)?),
            _ => None,
        };
        let hid = self.clear(path, &dir, &name, member.kind)?;
        match member.kind {
            Kind::Directory => {
                match rustix::fs::mkdirat(&dir, &*name, Mode::from(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(failed("make the directory")(error.into())),
                }
                let made = tree::open_dir_at(dir.as_fd(), &name).map_err(failed("open"))?;
                if hid {
                    whiteout::make_opaque(&made).map_err(failed("make opaque"))?;
                }
                self.describe_dir(path, made.as_fd(), member)?;
            }
            Kind::HardLink => {
                let target = link.expect("resolved above for hard links");
                self.link(path, &target, dir.as_fd(), &name)?;
            }
            Kind::Regular => self.regular(path, dir.as_fd(), &name, member, data)?,
            Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                special(path, dir.as_fd(), &name, member)?;
            }
        }
        if member.kind != Kind::HardLink {
            self.applied.inodes += 1;
            self.applied.bytes += member.size.next_multiple_of(PAGE);
        }
        self.parent = Some((parent.clone(), dir));
        Ok(())
    }

    fn open_parent(&mut self, parent: &TreePath) -> Result<OwnedFd, ApplyError> {
        if let Some((_, dir)) = self.parent.take_if(|(path, _)| path == parent) {
            return Ok(dir);
        }
        let implicit = &mut self.applied.implicit;
        let made = |path| {
            implicit.insert(path);
        };
        self.tree
            .ensure_dir(parent, made)
            .map_err(|cause| write_error("open the directory", parent, cause))
    }

    /// Removes what an earlier entry left at the place, unless a directory meets a directory.
    /// Answers whether that was a whiteout.
    fn clear(
        &mut self,
        path: &TreePath,
        dir: &OwnedFd,
        name: &CStr,
        kind: Kind,
    ) -> Result<bool, ApplyError> {
        let failed = |cause| write_error("replace", path, cause);
        let Some(stat) = tree::look(dir.as_fd(), name).map_err(failed)? else {
            return Ok(false);
        };
        let is_dir = tree::file_type(&stat) == FileType::Directory;
        if is_dir && kind == Kind::Directory {
            return Ok(false);
        }
        self.parent = None;
        tree::remove_all(dir.as_fd(), name).map_err(failed)?;
        Ok(whiteout::is_whiteout(&stat))
    }

    fn describe_dir(
        &mut self,
        path: &TreePath,
        dir: BorrowedFd<'_>,
        member: &Member,
    ) -> Result<(), ApplyError> {
        self.applied.implicit.remove(path);
        describe(path, dir, member)?;
        self.applied.times.push((path.clone(), member.mtime));
        Ok(())
    }

    fn link_target(&self, path: &TreePath, member: &Member) -> Result<TreePath, ApplyError> {
        let target = TreePath::parse(&member.link)
            .ok_or_else(|| refuse(&member.path, "its link target has `..`"))?;
        if target == *path || target.is_root() {
            return Err(refuse(&member.path, "it links to itself or to the root"));
        }
        Ok(target)
    }

    fn link(
        &mut self,
        path: &TreePath,
        target: &TreePath,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), ApplyError> {
        let failed = |cause| write_error("link", path, cause);
        let Some((parent, base)) = target.split() else {
            return Ok(());
        };
        let base = c_name(base).map_err(failed)?;
        let linked = self.tree.dir(&parent).and_then(|parent| {
            Ok(rustix::fs::linkat(
                &parent,
                &*base,
                dir,
                name,
                AtFlags::empty(),
            )?)
        });
        match linked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.applied.links.push((target.clone(), path.clone()));
                Ok(())
            }
            result => result.map_err(failed),
        }
    }

    fn regular(
        &mut self,
        path: &TreePath,
        dir: BorrowedFd<'_>,
        name: &CStr,
        member: &Member,
        data: &mut impl Read,
    ) -> Result<(), ApplyError> {
        let failed = |cause| write_error("write", path, cause);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::from(0o600))
            .map_err(|e| failed(e.into()))?;
        loop {
            let read = match data.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(ArchiveError::Read)?,
            };
            if read == 0 {
                break;
            }
            let mut rest = &self.buffer[..read];
            while !rest.is_empty() {
                let written = rustix::io::write(&file, rest).map_err(|e| failed(e.into()))?;
                rest = &rest[written..];
            }
        }
        describe(path, file.as_fd(), member)?;
        let times = timestamps(member.mtime);
        rustix::fs::futimens(&file, &times)
            .map_err(|e| write_error("set the time of", path, e.into()))
    }
}

/// Owner, xattrs and mode of an open file or directory, in this order: a change of owner clears
/// setuid and file capabilities.
fn describe(path: &TreePath, file: BorrowedFd<'_>, member: &Member) -> Result<(), ApplyError> {
    let failed = |step| move |errno: rustix::io::Errno| write_error(step, path, errno.into());
    let (uid, gid) = owner(member)?;
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(failed("change the owner of"))?;
    for (name, value) in kept_xattrs(member)? {
        match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
            // The file system has none of this kind; the content is what counts.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(failed("set an extended attribute of")(errno)),
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(member.mode)).map_err(failed("change the mode of"))
}

/// Symlinks, devices and FIFOs: made and described by name, since opening them has effects.
fn special(
    path: &TreePath,
    dir: BorrowedFd<'_>,
    name: &CStr,
    member: &Member,
) -> Result<(), ApplyError> {
    let failed = |step| move |errno: rustix::io::Errno| write_error(step, path, errno.into());
    let (uid, gid) = owner(member)?;
    let kind = match member.kind {
        Kind::CharDevice => Some(FileType::CharacterDevice),
        Kind::BlockDevice => Some(FileType::BlockDevice),
        Kind::Fifo => Some(FileType::Fifo),
        _ => None,
    };
    match kind {
        None => {
            let target = c_name(&member.link)
                .map_err(|_| refuse(&member.path, "its link target has a NUL"))?;
            rustix::fs::symlinkat(&*target, dir, name).map_err(failed("make the symlink"))?;
        }
        Some(kind) => {
            let device = rustix::fs::makedev(member.device.0, member.device.1);
            rustix::fs::mknodat(dir, name, kind, Mode::from(0o600), device)
                .map_err(failed("make the special file"))?;
        }
    }
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("change the owner of"))?;
    if kind.is_some() {
        // Made by us a moment ago in a directory nobody else writes to: not a symlink.
        rustix::fs::chmodat(
            dir,
            name,
            Mode::from_raw_mode(member.mode),
            AtFlags::empty(),
        )
        .map_err(failed("change the mode of"))?;
    }
    let times = timestamps(member.mtime);
    rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the time of"))
}

fn owner(member: &Member) -> Result<(Uid, Gid), ApplyError> {
    // 2³²−1 means "leave as it is" to chown(2).
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (id(member.uid), id(member.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(refuse(&member.path, "its owner is not a 32-bit id")),
    }
}

/// Name and value.
type Xattr<'a> = (&'a [u8], &'a [u8]);

/// The extended attributes that count: file capabilities and `user.*`. Security labels of the
/// building host mean nothing here and are dropped; overlayfs's own would subvert the mount.
fn kept_xattrs(member: &Member) -> Result<Vec<Xattr<'_>>, ApplyError> {
    let mut kept = Vec::new();
    for (name, value) in &member.xattrs {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            return Err(refuse(
                &member.path,
                "it sets an attribute reserved to overlayfs",
            ));
        }
        if value.len() > MAX_XATTR || name.contains(&0) {
            return Err(refuse(&member.path, "an extended attribute is malformed"));
        }
        if name == b"security.capability" || name.starts_with(b"user.") {
            kept.push((&name[..], &value[..]));
        }
    }
    Ok(kept)
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn refuse(path: &[u8], reason: &'static str) -> ApplyError {
    ApplyError::Refused {
        path: String::from_utf8_lossy(path).into_owned(),
        reason,
    }
}

pub(crate) fn write_error(step: &'static str, path: &TreePath, cause: io::Error) -> ApplyError {
    ApplyError::Write {
        step,
        path: path.display(),
        cause,
    }
}

#[cfg(test)]
mod tests;
