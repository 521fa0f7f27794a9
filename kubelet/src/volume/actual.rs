//! What is on disk and mounted for a pod.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

/// One step on the disk that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} `{}`", path.display())]
pub struct IoStep {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl IoStep {
    /// A step on a path.
    pub fn new(step: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        IoStep {
            step,
            path: path.into(),
            source: source.into(),
        }
    }

    /// Gives the error of a step on `path` its name.
    pub fn on<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> IoStep {
        move |source| IoStep::new(step, path, source)
    }
}

/// Whether something is mounted exactly on `path` (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8).
///
/// # Errors
/// When the path cannot be looked at; absence is an error.
pub fn is_mount_point(path: &Path) -> Result<bool, IoStep> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let seen = rustix::fs::statx(CWD, path, flags, StatxFlags::TYPE)
        .map_err(IoStep::on("look at", path))?;
    Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Everything mounted below `dir`, the deepest and latest first.
///
/// # Errors
/// When the mount table cannot be read.
pub fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>, IoStep> {
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(IoStep::new("resolve", dir, error)),
    };
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(table).map_err(IoStep::on("read", table))?;
    Ok(below(&text, &dir))
}

/// Mount points of a mountinfo text below `dir`. Later mounts cover earlier ones, so the
/// reverse order is one in which they can be taken off.
fn below(mountinfo: &[u8], dir: &Path) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4).map(unescape));
    let mut found: Vec<PathBuf> = points
        .filter(|point| point.starts_with(dir) && point != dir)
        .collect();
    found.reverse();
    found
}

/// Undoes mountinfo's `\040` and the like (proc(5)).
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &behind[3..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Whether `name` can be one step of a path.
pub fn is_plain_name(name: &str) -> bool {
    let bytes = std::ffi::OsStr::new(name).as_bytes();
    !name.is_empty() && name != "." && name != ".." && !bytes.contains(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_come_deepest_first() {
        let table = b"\
21 1 8:1 / / rw - ext4 /dev/sda rw
22 21 0:5 / /k/pods/u1/volumes/a rw shared:1 - tmpfs tmpfs rw
23 22 0:6 / /k/pods/u1/volumes/a/in\\040side rw - tmpfs tmpfs rw
24 21 0:7 / /k/pods/u10/volumes/a rw - tmpfs tmpfs rw
25 21 0:8 / /k/pods/u1 rw - tmpfs tmpfs rw
";
        let found = below(table, Path::new("/k/pods/u1"));
        let expected = ["/k/pods/u1/volumes/a/in side", "/k/pods/u1/volumes/a"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn the_root_is_a_mount_point_and_a_fresh_directory_is_none() {
        assert!(is_mount_point(Path::new("/")).unwrap());
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("x")).unwrap();
        assert!(!is_mount_point(&dir.path().join("x")).unwrap());
        assert!(is_mount_point(&dir.path().join("none")).is_err());
    }
}
