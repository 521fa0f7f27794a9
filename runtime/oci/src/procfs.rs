//! A private instance of procfs, never attached anywhere: what is written through it cannot be
//! redirected by a mount (CVE-2019-16884, CVE-2025-52881). Where none can be made, `/proc` itself,
//! checked for what it is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount::FsContext;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Magic number of procfs (linux/magic.h).
const PROC_MAGIC: i64 = 0x9fa0;
/// Inode of procfs' root (`PROC_ROOT_INO` of linux/proc_fs.h).
const ROOT_INODE: u64 = 1;

/// The instance, for the PID namespace of the process that made it; or none, where nothing is to be
/// read or written.
#[derive(Debug)]
pub(crate) struct ProcFs(Option<OwnedFd>);

impl ProcFs {
    /// A new detached instance.
    pub(crate) fn private() -> io::Result<ProcFs> {
        Ok(ProcFs(Some(FsContext::open("proc")?.mount(0)?)))
    }

    /// No instance: every access fails (`ENOTSUP`). To make one and take it away again is a good part
    /// of what an exec costs.
    pub(crate) fn none() -> ProcFs {
        ProcFs(None)
    }

    /// A private instance; where this process may not make one, the mounted one.
    ///
    /// In a user namespace the kernel allows a new instance only where the mount table shows one
    /// whole (`mount_too_revealing` of fs/namespace.c).
    pub(crate) fn open() -> io::Result<ProcFs> {
        match Self::private() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Self::mounted(),
            made => made,
        }
    }

    /// As [`ProcFs::open`], with the folders of processes alone (proc(5), `subset=pid`): a handle that
    /// may be seen by a process of the container must lead to no kernel parameter.
    pub(crate) fn of_processes() -> io::Result<ProcFs> {
        let private = || {
            let context = FsContext::open("proc")?;
            context.set("subset", "pid")?;
            Ok(ProcFs(Some(context.mount(0)?)))
        };
        match private() {
            Err::<_, io::Error>(error) if error.raw_os_error() == Some(libc::EPERM) => {
                Self::mounted()
            }
            made => made,
        }
    }

    /// The instance at `/proc`, refused (`ENOTSUP`) unless it is the root of a procfs. What is
    /// mounted over its files is never reached.
    pub(crate) fn mounted() -> io::Result<ProcFs> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, "/proc", flags, Mode::empty())?;
        let is_proc = rustix::fs::fstatfs(&fd)?.f_type as i64 == PROC_MAGIC;
        if !is_proc || rustix::fs::fstat(&fd)?.st_ino != ROOT_INODE {
            return Err(Errno::NOTSUP.into());
        }
        Ok(ProcFs(Some(fd)))
    }

    /// Writes an existing file, given by its path below the root of procfs.
    pub(crate) fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        self.file(path, OFlags::WRONLY)?.write_all(value.as_bytes())
    }

    /// Reads a small file.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        self.file(path, OFlags::RDONLY)?
            .take(1 << 16)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    /// The directory of the calling process's descriptors.
    pub(crate) fn own_descriptors(&self) -> io::Result<OwnedFd> {
        Ok(self
            .file(Path::new("self/fd"), OFlags::PATH | OFlags::DIRECTORY)?
            .into())
    }

    /// Opens a namespace of the calling process by its name in `/proc/self/ns`.
    pub(crate) fn own_namespace(&self, name: &str) -> io::Result<OwnedFd> {
        let folder = self.file(Path::new("self/ns"), OFlags::PATH | OFlags::DIRECTORY)?;
        // The last component is a link of the kernel's, which is what is wanted here.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
    }

    fn file(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let root = self.0.as_ref().ok_or(Errno::NOTSUP)?;
        Ok(File::from(rustix::fs::openat2(
            root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )?))
    }
}
