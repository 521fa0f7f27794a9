//! `tmpcopyup`: the content of a directory, copied into the file system that is to cover it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// How deep directories may be nested: each level keeps two descriptors open.
const MAX_DEPTH: usize = 64;

/// Copies what `from` holds into the empty directory `to`, and its own owner, mode and times.
/// Every entry is opened by its name in its own directory, no symbolic link is followed. Of two
/// names for one file each becomes a file of its own.
///
/// What a `parameter` of the new file system said of `to` itself (`mode`, `uid`, `gid`) stays.
///
/// # Errors
/// The kernel's for the entry that failed; `ELOOP` below 64 levels of directories.
pub(super) fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    parameters: &[(String, String)],
) -> io::Result<()> {
    let from = open_directory(from.as_fd(), ".")?;
    let to = open_directory(to.as_fd(), ".")?;
    let wanted = rustix::fs::fstat(&to)?;
    directory(&from, &to, MAX_DEPTH)?;
    let is_set = |name: &str| parameters.iter().any(|(known, _)| known == name);
    let (uid, gid) = owner(&wanted);
    let (uid, gid) = (uid.filter(|_| is_set("uid")), gid.filter(|_| is_set("gid")));
    rustix::fs::fchown(&to, uid, gid)?;
    if is_set("mode") {
        rustix::fs::fchmod(&to, Mode::from_raw_mode(wanted.st_mode & 0o7777))?;
    }
    Ok(())
}

fn open_directory(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name().to_str().map_err(|_| Errno::ILSEQ)?;
        if name != "." && name != ".." {
            one(from, to, name, depth)?;
        }
    }
    let stat = rustix::fs::fstat(from)?;
    attributes(from, to)?;
    finish(to, &stat)
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &str, depth: usize) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let inner = (
                open_directory(from.as_fd(), name)?,
                open_directory(to.as_fd(), name)?,
            );
            directory(&inner.0, &inner.1, depth)
        }
        FileType::RegularFile => file(from, to, name, mode),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
            own(to, name, &stat)
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            own(to, name, &stat)?;
            Ok(rustix::fs::chmodat(to, name, mode, AtFlags::empty())?)
        }
    }
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &str, mode: Mode) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&source)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN.into()); // exchanged since it was looked at
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(to, name, flags, mode)?;
    io::copy(
        &mut std::fs::File::from(source.try_clone()?),
        &mut std::fs::File::from(copy.try_clone()?),
    )?;
    attributes(&source, &copy)?;
    finish(&copy, &stat)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

fn own(to: &OwnedFd, name: &str, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    Ok(rustix::fs::chownat(
        to,
        name,
        uid,
        gid,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Owner, then mode, for a change of owner takes set-user-id bits away; times last.
fn finish(copy: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(copy, uid, gid)?;
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds: i64, nanoseconds: i64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    };
    Ok(rustix::fs::futimens(copy, &times)?)
}

/// Extended attributes, as far as the new file system takes them.
fn attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut names = vec![0u8; 1 << 16];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    for name in names[..length].split(|byte| *byte == 0) {
        let Some(name) = std::str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty())
        else {
            continue;
        };
        let mut value = vec![0u8; 1 << 16];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::NOTSUP | Errno::PERM) => {}
            done => done?,
        }
    }
    Ok(())
}
