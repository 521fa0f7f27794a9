//! [`RootDir`]: the only way to touch a path inside a root file system that berth does not trust.
//!
//! Invariant: every path is resolved by the kernel below the open directory (openat2(2) with
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`); an absolute link or `..` ends at that root, never outside.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// An open directory which is the root of all paths given to its methods.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for RootDir {
    /// Takes a directory that is already open (`O_PATH` suffices) as root.
    fn from(fd: OwnedFd) -> RootDir {
        RootDir { fd }
    }
}

impl RootDir {
    /// Opens a directory of the host as root. Symbolic links in `path` itself are the host's and are followed.
    pub fn open(path: impl AsRef<Path>) -> io::Result<RootDir> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(RootDir {
            fd: rustix::fs::open(path.as_ref(), flags, Mode::empty())?,
        })
    }

    /// A handle (`O_PATH`) to what `path` names, links followed inside the root.
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open2(
            path.as_ref(),
            OFlags::PATH,
            Mode::empty(),
            ResolveFlags::empty(),
        )
    }

    /// As [`RootDir::resolve`], but a symbolic link anywhere in `path` is refused (`ELOOP`).
    pub fn resolve_no_symlinks(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open2(
            path.as_ref(),
            OFlags::PATH,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS,
        )
    }

    /// A handle (`O_PATH`) to the last component itself, even if it is a symbolic link.
    pub fn resolve_nofollow(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open2(
            path.as_ref(),
            OFlags::PATH | OFlags::NOFOLLOW,
            Mode::empty(),
            ResolveFlags::empty(),
        )
    }

    /// Opens an existing directory.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open2(path.as_ref(), flags, Mode::empty(), ResolveFlags::empty())
    }

    /// Opens a file with `flags`; `mode` counts where `flags` create it. Never blocks on a FIFO and
    /// never takes a terminal.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(mode);
        Ok(File::from(self.open2(
            path.as_ref(),
            flags,
            mode,
            ResolveFlags::empty(),
        )?))
    }

    /// The whole regular file at `path`, refused (`EFBIG`) above `limit` bytes.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        // Without O_NONBLOCK a named pipe would keep the caller waiting for a writer.
        let file = self.open_file(path, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Errno::INVAL.into());
        }
        // Room for the byte beyond the end, so that one read finds the end too.
        let expected = metadata.len().min(limit).saturating_add(1);
        let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            Err(Errno::FBIG.into())
        } else {
            Ok(bytes)
        }
    }

    /// Makes the directory and its missing parents (0755 less umask: `mode`), and opens it (`O_PATH`).
    /// What exists may be a link to a directory inside the root; a link to nothing is refused (`ENOENT`).
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<OwnedFd> {
        let path = normal(path.as_ref())?;
        match self.resolve_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let mut partial = PathBuf::from("/");
        let mut current = self.resolve_dir(&partial)?;
        for name in path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
        {
            partial.push(name);
            current = match self.resolve_dir(&partial) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(&current, name.as_os_str(), Mode::from_raw_mode(mode))
                    {
                        Ok(()) | Err(Errno::EXIST) => self.resolve_dir(&partial)?,
                        Err(errno) => return Err(errno.into()),
                    }
                }
                done => done?,
            };
        }
        Ok(current)
    }

    /// Opens (`O_PATH`) what `path` names, first making an empty file with its parents if there is nothing.
    pub fn ensure_file(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<OwnedFd> {
        match self.resolve(path.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let (parent, name) = self.parent(path.as_ref(), 0o755)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(mode)) {
            Ok(_) | Err(Errno::EXIST) => self.resolve(path.as_ref()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The opened parent directory of `path` (made if missing) and the last component.
    pub fn parent(&self, path: &Path, mode: u32) -> io::Result<(OwnedFd, std::ffi::OsString)> {
        let path = normal(path)?;
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.mkdir_all(parent, mode)?, name))
    }

    /// Makes a symbolic link; `EEXIST` when the name is taken.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref(), 0o755)?;
        Ok(rustix::fs::symlinkat(target.as_ref(), parent, &name)?)
    }

    /// Makes a device node or FIFO; `EEXIST` when the name is taken.
    pub fn mknod(
        &self,
        path: impl AsRef<Path>,
        kind: FileType,
        mode: u32,
        device: Dev,
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref(), 0o755)?;
        Ok(rustix::fs::mknodat(
            parent,
            &name,
            kind,
            Mode::from_raw_mode(mode),
            device,
        )?)
    }

    fn resolve_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open2(
            path,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
            ResolveFlags::empty(),
        )
    }

    fn open2(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        extra: ResolveFlags,
    ) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new("/")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
        loop {
            // EAGAIN: a rename or mount ran alongside and the kernel could not vouch for `..`.
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }
}

/// Opens the host's `path` as a handle, without following a last symbolic link.
pub fn open_host_nofollow(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// The path as absolute and free of `.` and `//`; `..` is refused, for it cannot be created safely.
fn normal(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if !OsStr::as_bytes(name).contains(&0) => out.push(name),
            _ => return Err(Errno::INVAL.into()),
        }
    }
    Ok(out)
}

impl From<RootDir> for OwnedFd {
    fn from(root: RootDir) -> OwnedFd {
        root.fd
    }
}
