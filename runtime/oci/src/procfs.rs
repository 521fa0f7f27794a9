//! A private instance of procfs, never attached anywhere: what is written through it cannot be
//! redirected by a mount (CVE-2019-16884, CVE-2025-52881).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount::FsContext;
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// The instance, for the PID namespace of the process that made it.
#[derive(Debug)]
pub(crate) struct ProcFs(OwnedFd);

impl ProcFs {
    /// A new detached instance.
    pub(crate) fn private() -> io::Result<ProcFs> {
        Ok(ProcFs(FsContext::open("proc")?.mount(0)?))
    }

    /// Writes an existing file, given by its path below the root of procfs.
    pub(crate) fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        self.open(path, OFlags::WRONLY)?.write_all(value.as_bytes())
    }

    /// Reads a small file.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        self.open(path, OFlags::RDONLY)?
            .take(1 << 16)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    /// The directory of the calling process's descriptors.
    pub(crate) fn own_descriptors(&self) -> io::Result<OwnedFd> {
        Ok(self
            .open(Path::new("self/fd"), OFlags::PATH | OFlags::DIRECTORY)?
            .into())
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Ok(File::from(rustix::fs::openat2(
            &self.0,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )?))
    }
}
