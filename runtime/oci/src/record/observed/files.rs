//! Access to the files of one process.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::root::RootDir;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, Stat, StatxFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::open_directory;

/// Largest text file of a process that is read; a mount table of 4 MiB has some 30 000 lines.
const TEXT_MAX: usize = 4 << 20;
/// Longest target of a link in procfs, which is cut at a page (readlink(2)).
const PATH_MAX: usize = 4096;
/// Largest value of a kernel parameter.
const VALUE_MAX: usize = 64 << 10;

/// The directory of one process in procfs.
#[derive(Debug)]
pub(in crate::record) struct Reader {
    directory: OwnedFd,
    buffer: Vec<u8>,
}

impl Reader {
    pub(in crate::record) fn open(pid: i32) -> io::Result<Reader> {
        Reader::at(&Path::new("/proc").join(pid.to_string()))
    }

    /// The calling process's own.
    pub(in crate::record) fn own() -> io::Result<Reader> {
        Reader::at(Path::new("/proc/self"))
    }

    fn at(path: &Path) -> io::Result<Reader> {
        Ok(Reader {
            directory: open_directory(path)?,
            buffer: Vec::with_capacity(4 << 10),
        })
    }

    /// The text of a file; too long a one is an error, not cut.
    pub(in crate::record) fn read(&mut self, name: &str) -> io::Result<String> {
        let bytes = self.read_bytes(name, TEXT_MAX)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(super) fn read_bytes(&mut self, name: &str, max: usize) -> io::Result<&[u8]> {
        let file = open(&self.directory, Path::new(name))?;
        read_all(&file, &mut self.buffer, max)?;
        Ok(&self.buffer)
    }

    pub(super) fn link(&self, name: &str) -> io::Result<String> {
        let mut room = [MaybeUninit::uninit(); PATH_MAX];
        let target = target(&self.directory, name, &mut room)?;
        Ok(String::from_utf8_lossy(target).into_owned())
    }

    /// What a link of this directory leads to.
    pub(super) fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.directory, name, AtFlags::empty())?)
    }

    /// Inode of a namespace; `None` where the kernel has no such kind. Read from the link's text,
    /// such as `net:[4026531840]`: to follow it makes an inode for it each time.
    pub(in crate::record) fn namespace(&self, kind: &str) -> io::Result<Option<u64>> {
        let mut room = [MaybeUninit::uninit(); 64];
        let target = match target(&self.directory, format!("ns/{kind}"), &mut room) {
            Ok(target) => String::from_utf8_lossy(target),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let inode = target
            .rsplit_once('[')
            .map(|(_, rest)| rest.trim_end_matches(']'));
        let inode = inode.and_then(|inode| inode.parse().ok());
        inode.map(Some).ok_or_else(|| {
            let reason = format!("the link ns/{kind} leads to `{target}`");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })
    }

    pub(super) fn open_namespace(&self, kind: &str) -> io::Result<OwnedFd> {
        Ok(open(&self.directory, Path::new(&format!("ns/{kind}")))?)
    }

    /// The process's root directory.
    pub(super) fn root(&self) -> io::Result<RootDir> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&self.directory, "root", flags, Mode::empty())?;
        Ok(RootDir::from(root))
    }

    /// The security label; `None` without a security module that has labels.
    pub(in crate::record) fn label(&mut self) -> Option<String> {
        for name in ["attr/apparmor/current", "attr/current"] {
            if let Ok(label) = self.read(name) {
                let label = label.trim_matches(|c: char| c == '\0' || c.is_whitespace());
                return (!label.is_empty()).then(|| label.to_owned());
            }
        }
        None
    }

    /// Open descriptors and where they lead; with `closing` those marked close-on-exec are left out.
    pub(super) fn descriptors(
        &mut self,
        closing: bool,
        max: usize,
    ) -> io::Result<BTreeMap<u32, String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.directory, "fd", flags, Mode::empty())?;
        let mut out = BTreeMap::new();
        let mut room = [MaybeUninit::uninit(); 2048];
        let mut entries = RawDir::new(&folder, &mut room);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().ok().and_then(|name| name.parse().ok()) else {
                continue; // `.` and `..`
            };
            if closing && number > 2 && self.closes_on_exec(number)? {
                continue;
            }
            if out.len() == max {
                return Err(io::Error::other(format!(
                    "more than {max} open descriptors"
                )));
            }
            let mut room = [MaybeUninit::uninit(); PATH_MAX];
            let target = target(&folder, name, &mut room)?;
            out.insert(number, String::from_utf8_lossy(target).into_owned());
        }
        Ok(out)
    }

    fn closes_on_exec(&mut self, number: u32) -> io::Result<bool> {
        let text = self.read(&format!("fdinfo/{number}"))?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        Ok(flags.is_some_and(|flags| flags & OFlags::CLOEXEC.bits() != 0))
    }

    /// Whether the program carries capabilities (`security.capability`).
    pub(super) fn has_file_capabilities(&self) -> bool {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&self.directory, "exe", flags, Mode::empty()) else {
            return true; // unknown: the bound is then the bounding set
        };
        let mut value = [0u8; 64];
        !matches!(
            rustix::fs::fgetxattr(&file, "security.capability", &mut value[..]),
            Err(Errno::NODATA | Errno::OPNOTSUPP)
        )
    }
}

/// Where a link leads, cut at the end of `room`.
fn target<'a>(
    directory: &OwnedFd,
    name: impl Arg,
    room: &'a mut [MaybeUninit<u8>],
) -> rustix::io::Result<&'a [u8]> {
    let (target, _) = rustix::fs::readlinkat_raw(directory, name, room)?;
    Ok(target)
}

fn open(directory: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        directory,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn read_all(file: &OwnedFd, buffer: &mut Vec<u8>, max: usize) -> io::Result<()> {
    buffer.clear();
    loop {
        if buffer.len() > max {
            return Err(io::Error::other(format!("has more than {max} bytes")));
        }
        if buffer.capacity() - buffer.len() < 1024 {
            buffer.reserve(4096);
        }
        match rustix::io::read(file, rustix::buffer::spare_capacity(buffer)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A small text file of the host.
pub(in crate::record) fn read_small(base: impl AsFd, path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(base, path, flags, Mode::empty())?;
    let mut buffer = Vec::new();
    read_all(&file, &mut buffer, VALUE_MAX)?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Mount, and device and inode.
pub(super) struct Place {
    pub(super) mount: u64,
    pub(super) file: (u64, u64),
    /// It is a symbolic link.
    pub(super) link: bool,
}

/// Where an open descriptor is.
pub(super) fn statx(fd: &OwnedFd) -> Option<Place> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, wanted).ok()?;
    Some(Place {
        mount: found.stx_mnt_id,
        file: (
            rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            found.stx_ino,
        ),
        link: rustix::fs::FileType::from_raw_mode(found.stx_mode.into())
            == rustix::fs::FileType::Symlink,
    })
}

/// A program found where the process itself finds it.
pub(super) struct Found {
    pub(super) file: (u64, u64),
    /// Executed by the kernel itself, not by an interpreter.
    pub(super) native: bool,
}

/// The program `name`, searched as execvp(3) does, below `root`.
pub(super) fn find_program(root: &RootDir, name: &str, cwd: &str, path: &str) -> Option<Found> {
    if name.contains('/') {
        return program_at(root, &Path::new(cwd).join(name));
    }
    let mut folders = path.split(':');
    folders.find_map(|folder| {
        let folder = Path::new(cwd).join(folder);
        program_at(root, &folder.join(name))
    })
}

fn program_at(root: &RootDir, path: &Path) -> Option<Found> {
    let fd = root.resolve(path).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    let regular =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    if !regular || stat.st_mode & 0o111 == 0 {
        return None;
    }
    let mut head = [0u8; 20];
    let file = root.open_file(path, OFlags::RDONLY, 0).ok();
    let read = file.and_then(|mut file| io::Read::read(&mut file, &mut head).ok());
    // ELF of 64 bits for this machine (elf(5)); anything else may have an interpreter.
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let native = read == Some(20) && head.starts_with(b"\x7fELF\x02") && machine == NATIVE;
    Some(Found {
        file: (stat.st_dev, stat.st_ino),
        native,
    })
}

/// `e_machine` of this architecture (elf(5)).
const NATIVE: u16 = if cfg!(target_arch = "aarch64") {
    183
} else {
    62
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_observed() {
        let mut own = Reader::own().unwrap();
        assert!(own.read("status").unwrap().contains("CapBnd"));
        assert!(own.namespace("mnt").unwrap().is_some());
        assert_eq!(own.namespace("nonsense").unwrap(), None);
        let all = own.descriptors(false, 1024).unwrap();
        assert!(all.contains_key(&0));
        assert!(own.descriptors(false, 1).is_err());
        assert!(own.descriptors(true, 1024).unwrap().len() < all.len());
        assert!(own.read_bytes("status", 10).is_err(), "a bound is no cut");
    }
}
