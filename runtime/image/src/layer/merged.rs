//! The layers of an image as one tree, read as overlayfs would show them.
//!
//! Used where no mount exists: to complete a layer from those below it, and to read passwd and
//! group. Symlinks are followed within the merged tree.

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};

use super::apply::{Applied, ApplyError, write_error};
use super::tree::{self, Tree, TreePath, c_name};
use super::whiteout;

/// Symlinks followed in one lookup (MAXSYMLINKS of Linux).
const MAX_LINKS: usize = 40;
const CAPABILITY: &str = "security.capability";

/// Layers, topmost first, cut below an opaque root.
pub(crate) struct Merged {
    trees: Vec<Tree>,
}

/// What a lookup found.
pub(crate) enum Node {
    /// A directory: its parts, topmost first.
    Dir(Vec<OwnedFd>),
    /// Anything else: the directory it lies in and its name there.
    File {
        dir: OwnedFd,
        name: CString,
        stat: Box<Stat>,
    },
}

enum Step {
    Absent,
    Node(Node),
    Link(Vec<u8>),
}

impl Merged {
    pub fn new(trees: Vec<Tree>) -> Self {
        Self { trees }
    }

    /// Finds `path`. With `follow` unset, a symlink at the very end is itself the result.
    pub fn find(&self, path: &[u8], follow: bool) -> io::Result<Option<Node>> {
        let mut at = self.roots()?;
        // Where `at` is, so that `..` can walk there anew: with many layers, descriptors are dear.
        let mut trail: Vec<Vec<u8>> = Vec::new();
        let mut rest = components(path);
        let mut links = 0;
        while let Some(component) = rest.pop_front() {
            if component == b".." {
                trail.pop();
                at = self.walk(&trail)?;
                continue;
            }
            match step(&at, &component, follow || !rest.is_empty())? {
                Step::Absent => return Ok(None),
                Step::Node(Node::Dir(dirs)) => {
                    at = dirs;
                    trail.push(component);
                }
                Step::Node(file) => return Ok(rest.is_empty().then_some(file)),
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        trail.clear();
                        at = self.roots()?;
                    }
                    for component in components(&target).into_iter().rev() {
                        rest.push_front(component);
                    }
                }
            }
        }
        Ok(Some(Node::Dir(at)))
    }

    fn roots(&self) -> io::Result<Vec<OwnedFd>> {
        self.trees
            .iter()
            .map(|tree| tree.root().try_clone_to_owned())
            .collect()
    }

    /// Walks directories that were found before; nothing changes a complete layer.
    fn walk(&self, trail: &[Vec<u8>]) -> io::Result<Vec<OwnedFd>> {
        let mut at = self.roots()?;
        for component in trail {
            match step(&at, component, false)? {
                Step::Node(Node::Dir(dirs)) => at = dirs,
                _ => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(at)
    }

    /// Opens the regular file at `path`; other kinds of file are refused without being opened.
    pub fn open_file(&self, path: &[u8]) -> io::Result<Option<File>> {
        match self.find(path, true)? {
            Some(Node::File { dir, name, stat })
                if tree::file_type(&stat) == FileType::RegularFile =>
            {
                open_regular(&dir, &name).map(Some)
            }
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            )),
            None => Ok(None),
        }
    }

    /// Completes a layer from the layers below it, which this is.
    pub fn complete(&self, layer: &Tree, applied: &Applied) -> Result<(), ApplyError> {
        let mut copied = HashMap::new();
        for (target, place) in &applied.links {
            self.link_below(layer, target, place, &mut copied)
                .map_err(|cause| write_error("link", place, cause))?;
        }
        for path in &applied.implicit {
            self.describe_like_below(layer, path)
                .map_err(|cause| write_error("describe the directory", path, cause))?;
        }
        applied.set_times(layer)
    }

    /// Gives a directory that the layer does not describe the owner, mode and time it has below.
    fn describe_like_below(&self, layer: &Tree, path: &TreePath) -> io::Result<()> {
        let Some(Node::Dir(dirs)) = self.find(&path.bytes(), true)? else {
            return Ok(());
        };
        let Some(below) = dirs.first() else {
            return Ok(());
        };
        let dir = match layer.dir_without_links(path) {
            // A later entry of the layer replaced it.
            Err(_) => return Ok(()),
            Ok(dir) => dir,
        };
        copy_description(&rustix::fs::fstat(below)?, &dir)
    }

    fn link_below(
        &self,
        layer: &Tree,
        target: &TreePath,
        place: &TreePath,
        copied: &mut HashMap<TreePath, TreePath>,
    ) -> io::Result<()> {
        let Some((parent, name)) = place.split() else {
            return Ok(());
        };
        let (dir, name) = (layer.dir(&parent)?, c_name(name)?);
        if let Some((first_parent, first_name)) = copied.get(target).and_then(TreePath::split) {
            let first = layer.dir(&first_parent)?;
            let first_name = c_name(first_name)?;
            return Ok(rustix::fs::linkat(
                &first,
                &*first_name,
                &dir,
                &*name,
                AtFlags::empty(),
            )?);
        }
        match self.find(&target.bytes(), false)? {
            Some(Node::File {
                dir: below,
                name: below_name,
                stat,
            }) if tree::file_type(&stat) == FileType::RegularFile => {
                copy_up(&open_regular(&below, &below_name)?, &stat, &dir, &name)?;
                copied.insert(target.clone(), place.clone());
                Ok(())
            }
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "target is not a file",
            )),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "target is in no layer",
            )),
        }
    }
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    let meaningful = |component: &&[u8]| !component.is_empty() && *component != b".";
    path.split(|b| *b == b'/')
        .filter(meaningful)
        .map(<[u8]>::to_vec)
        .collect()
}

/// One component within a merged directory, by overlayfs's rules.
fn step(level: &[OwnedFd], component: &[u8], follow: bool) -> io::Result<Step> {
    let name = c_name(component)?;
    let mut dirs = Vec::new();
    for dir in level {
        let Some(stat) = tree::look(dir.as_fd(), &name)? else {
            continue;
        };
        if whiteout::is_whiteout(&stat) {
            break;
        }
        match tree::file_type(&stat) {
            FileType::Directory => {
                let found = tree::open_dir_at(dir.as_fd(), &name)?;
                let opaque = whiteout::is_opaque(&found)?;
                dirs.push(found);
                if opaque {
                    break;
                }
            }
            _ if !dirs.is_empty() => break,
            FileType::Symlink if follow => {
                let target = rustix::fs::readlinkat(dir, &*name, Vec::new())?;
                return Ok(Step::Link(target.into_bytes()));
            }
            _ => {
                let dir = dir.try_clone()?;
                return Ok(Step::Node(Node::File {
                    dir,
                    name,
                    stat: Box::new(stat),
                }));
            }
        }
    }
    Ok(if dirs.is_empty() {
        Step::Absent
    } else {
        Step::Node(Node::Dir(dirs))
    })
}

fn open_regular(dir: &OwnedFd, name: &CString) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        dir,
        &**name,
        flags,
        Mode::empty(),
    )?))
}

/// Copies a regular file of a layer below, as overlayfs does when a link to it is made.
fn copy_up(mut from: &File, stat: &Stat, dir: &OwnedFd, name: &CString) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = File::from(rustix::fs::openat(dir, &**name, flags, Mode::from(0o600))?);
    io::copy(&mut from, &mut to)?;
    let to = OwnedFd::from(to);
    let mut capability = [0u8; 64];
    let capability = match rustix::fs::fgetxattr(from, CAPABILITY, &mut capability[..]) {
        Ok(length) => Some(capability[..length].to_vec()),
        Err(_) => None,
    };
    copy_description(stat, &to)?;
    if let Some(value) = capability {
        rustix::fs::fsetxattr(&to, CAPABILITY, &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Owner, mode and times; the owner first, since changing it clears setuid.
pub(crate) fn copy_description(stat: &Stat, to: &OwnedFd) -> io::Result<()> {
    let (uid, gid) = (stat.st_uid, stat.st_gid);
    rustix::fs::fchown(
        to,
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
    )?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.cast_signed(),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(to, &times)?)
}
