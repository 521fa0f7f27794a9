//! One layer's directory: the only way to touch a path inside it.
//!
//! Every path is walked by openat2(2) below the root's descriptor; a symlink in the layer can only
//! lead to another place of the layer, and the last component is never followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

/// openat2 says EAGAIN when a rename races with a walk through `..`; nothing renames here for long.
const RACE_RETRIES: usize = 16;
/// Directories deeper than this in one path cannot be removed; PATH_MAX allows no more.
const MAX_DEPTH: usize = 2048;

/// A path below the tree's root, split: no empty, `.` or `..` component, no slash in one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TreePath(Vec<u8>);

/// The root directory of a layer.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

impl TreePath {
    /// Normalises an archive's path: a leading `/` and `.` fall away; `..` gives `None`, and so
    /// does a NUL.
    pub fn parse(path: &[u8]) -> Option<Self> {
        let mut clean = Vec::with_capacity(path.len());
        for component in path.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return None,
                _ if component.contains(&0) => return None,
                _ => {
                    if !clean.is_empty() {
                        clean.push(b'/');
                    }
                    clean.extend_from_slice(component);
                }
            }
        }
        Some(Self(clean))
    }

    pub fn root() -> Self {
        Self(Vec::new())
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|b| *b == b'/')
            .filter(|component| !component.is_empty())
    }

    /// Parent and last component; `None` for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None if self.is_root() => None,
            None => Some((Self(Vec::new()), &self.0)),
        }
    }

    pub fn join(&self, component: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
        Self(path)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    pub fn display(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.0))
    }

    fn c_string(&self) -> CString {
        let bytes = if self.is_root() {
            b".".to_vec()
        } else {
            self.0.clone()
        };
        CString::new(bytes).expect("TreePath::parse refuses NUL")
    }
}

/// A last component as the kernel takes it.
pub(crate) fn c_name(component: &[u8]) -> io::Result<CString> {
    CString::new(component).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Tree {
    /// Opens the directory at a path of the host, which the caller chose.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { root })
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory, following symlinks within the tree.
    pub fn dir(&self, path: &TreePath) -> io::Result<OwnedFd> {
        self.walk(
            path,
            OFlags::PATH | OFlags::DIRECTORY,
            ResolveFlags::IN_ROOT,
        )
    }

    /// Opens a directory for reading, refusing every symlink on the way.
    pub fn dir_without_links(&self, path: &TreePath) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        self.walk(path, OFlags::RDONLY | OFlags::DIRECTORY, resolve)
    }

    /// Opens `path` as a directory, making what is missing with mode 0755; calls `made` for each
    /// directory made.
    pub fn ensure_dir(
        &self,
        path: &TreePath,
        mut made: impl FnMut(TreePath),
    ) -> io::Result<OwnedFd> {
        match self.dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let mut at = TreePath(Vec::new());
        let mut dir = self.dir(&at)?;
        for component in path.components() {
            let next = at.join(component);
            dir = match self.dir(&next) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&dir, c_name(component)?, Mode::from(0o755))?;
                    made(next.clone());
                    self.dir(&next)?
                }
                result => result?,
            };
            at = next;
        }
        Ok(dir)
    }

    fn walk(&self, path: &TreePath, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let name = path.c_string();
        for _ in 0..RACE_RETRIES {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.root, &name, flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
        Err(rustix::io::Errno::AGAIN.into())
    }
}

/// What is at `name` in `dir`, itself, not what it points to.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens the directory `name` of `dir`; a symlink is an error.
pub(crate) fn open_dir_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Removes `name` of `dir` with everything below it, never following a symlink.
pub(crate) fn remove_all(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    remove_below(dir, name, MAX_DEPTH)
}

fn remove_below(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    if depth == 0 {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    let below = open_dir_at(dir, name)?;
    for entry in Dir::read_from(&below)? {
        let entry = entry?;
        let child = entry.file_name();
        if child != c"." && child != c".." {
            remove_below(below.as_fd(), child, depth - 1)?;
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}
