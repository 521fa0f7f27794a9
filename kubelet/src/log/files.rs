//! The files of one container log, reached only through their opened directory: a link at
//! any place of the path is refused, so that nothing a container's log directory is
//! swapped for can be read, renamed or removed through it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags};

use super::plan::{COMPRESSED, UNFINISHED, is_rotated};

/// One log and what it was renamed to, in their directory.
#[derive(Debug)]
pub struct LogFiles {
    dir: OwnedFd,
    /// Name of the log that is written to, `0.log`.
    base: String,
}

impl LogFiles {
    /// Opens the directory of `log`, which must be below `logs`; the log need not be there.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is not below `logs`, else the kernel's.
    pub fn open(logs: &Path, log: &Path) -> io::Result<LogFiles> {
        let below = log.strip_prefix(logs).unwrap_or(log);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let (Some(parent), Some(base)) = (below.parent(), below.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let Some(base) = base.to_str().filter(|_| below.components().all(plain)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let logs = File::open(logs)?;
        Ok(LogFiles {
            dir: rustix::fs::openat2(&logs, parent, flags, Mode::empty(), within)?,
            base: base.to_owned(),
        })
    }

    /// Name of the log that is written to.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The log for reading: the file that is written to or, between a renaming and the
    /// runtime's new file, the one it was.
    ///
    /// # Errors
    /// There is neither, or it is no plain file.
    pub fn newest(&self) -> io::Result<File> {
        match self.read(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let last = self.uncompressed()?.pop();
                last.map_or(Err(error), |name| self.read(&name))
            }
            other => other,
        }
    }

    /// The file written after the one with this inode; `None` when that is the newest. One
    /// that has no name any more was rotated and compressed since: the oldest file that
    /// is not compressed follows it.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read.
    pub fn after(&self, inode: u64) -> io::Result<Option<File>> {
        let mut names = self.uncompressed()?;
        names.push(self.base.clone());
        let mut oldest = None;
        let mut found = false;
        for name in names {
            let file = match self.read(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if found {
                return Ok(Some(file));
            }
            found = file.metadata()?.ino() == inode;
            oldest.get_or_insert(file);
        }
        Ok(oldest.filter(|_| !found))
    }

    /// Bytes in the log that is written to; `None` when it is not there.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn size(&self) -> io::Result<Option<u64>> {
        match rustix::fs::statat(&self.dir, &self.base, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) => Ok(Some(u64::try_from(seen.st_size).unwrap_or_default())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Names of the rotated files, the oldest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn rotated(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if is_rotated(&self.base, name) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn uncompressed(&self) -> io::Result<Vec<String>> {
        let mut names = self.rotated()?;
        names.retain(|name| !name.ends_with(COMPRESSED) && !name.ends_with(UNFINISHED));
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.dir, name, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Removes one file; one that is gone already is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes the log and everything it was renamed to.
    ///
    /// # Errors
    /// The first that cannot be removed; all are tried.
    pub fn remove_all(&self) -> io::Result<()> {
        let mut outcome = self.remove(&self.base);
        for name in self.rotated()? {
            outcome = outcome.and(self.remove(&name));
        }
        outcome
    }

    /// Renames one file; never over another.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a file of the new name, else the kernel's.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let never_over = RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(
            &self.dir, from, &self.dir, to, never_over,
        )?)
    }

    /// Replaces a file by its gzip form with the same mode; a crash leaves the original,
    /// and a file that the next rotation removes.
    ///
    /// # Errors
    /// Reading or writing fails; the original stays.
    pub fn compress(&self, name: &str) -> io::Result<()> {
        let mut source = self.read(name)?;
        let done = format!("{name}{COMPRESSED}");
        let unfinished = format!("{done}{UNFINISHED}");
        let mode = Mode::from_raw_mode(source.metadata()?.mode() & 0o777);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = File::from(rustix::fs::openat(&self.dir, &unfinished, flags, mode)?);
        let mut encoder = GzEncoder::new(target, Compression::default());
        let written = io::copy(&mut source, &mut encoder).and_then(|_| encoder.finish());
        let renamed = written.and_then(|file| {
            file.sync_all()?;
            self.rename(&unfinished, &done)
        });
        if renamed.is_err() {
            self.remove(&unfinished)?;
        }
        renamed?;
        self.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn text(file: Option<File>) -> String {
        let mut text = String::new();
        file.unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn links_and_outside_paths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir_all(logs.join("pod")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(logs.join("pod/0.log"), "x").unwrap();
        std::os::unix::fs::symlink("../../secret", logs.join("pod/link.log")).unwrap();
        std::os::unix::fs::symlink("pod", logs.join("dir")).unwrap();
        let open = |path: &Path| LogFiles::open(&logs, path)?.newest();
        assert!(open(&logs.join("pod/0.log")).is_ok());
        for wrong in [
            logs.join("pod/link.log"),
            logs.join("dir/0.log"),
            logs.join("../secret"),
            logs.join("pod"),
            dir.path().join("secret"),
            logs.clone(),
        ] {
            assert!(open(&wrong).is_err(), "{}", wrong.display());
        }
    }

    #[test]
    fn a_reader_goes_from_file_to_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (name, content) in [
            ("0.log.20260101-000000.gz", "compressed"),
            ("0.log.20260101-000001", "first"),
            ("0.log.20260101-000002", "second"),
        ] {
            std::fs::write(path(name), content).unwrap();
        }
        let files = LogFiles::open(dir.path(), &path("0.log")).unwrap();
        assert_eq!(
            text(Some(files.newest().unwrap())),
            "second",
            "renamed just now"
        );
        std::fs::write(path("0.log"), "third").unwrap();
        assert_eq!(text(Some(files.newest().unwrap())), "third");
        let inode = |name: &str| path(name).metadata().unwrap().ino();
        let after = |name: &str| files.after(inode(name)).unwrap();
        assert_eq!(text(after("0.log.20260101-000001")), "second");
        assert_eq!(text(after("0.log.20260101-000002")), "third");
        assert!(after("0.log").is_none());
        assert_eq!(text(files.after(0).unwrap()), "first", "compressed since");
    }

    #[test]
    fn compression_keeps_the_content_and_the_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let name = "0.log.20260101-000000";
        let path = dir.path().join(name);
        std::fs::write(&path, "many lines\n".repeat(1000)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let files = LogFiles::open(dir.path(), &dir.path().join("0.log")).unwrap();
        files.compress(name).unwrap();
        let done = File::open(dir.path().join(format!("{name}.gz"))).unwrap();
        assert_eq!(done.metadata().unwrap().mode() & 0o777, 0o640);
        let mut back = String::new();
        let mut decoder = flate2::read::GzDecoder::new(done);
        decoder.read_to_string(&mut back).unwrap();
        assert_eq!(back, "many lines\n".repeat(1000));
        assert_eq!(files.rotated().unwrap(), [format!("{name}.gz")]);
        files.remove_all().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
