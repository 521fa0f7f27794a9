//! `fsGroup`: the group that owns a volume, and what it may do there.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;

/// What the group of a file written by the kubelet may do: read.
const FILE: u32 = 0o440;
/// What the group of a directory may do, and that what is made in it gets the group too.
const DIR: u32 = 0o2550;

/// Sets mode and group of an open file, in this order of the kernel's: a change of owner
/// clears the set-group-id bit.
///
/// # Errors
/// The kernel's.
pub fn apply(file: &std::fs::File, mode: u32, group: Option<u32>) -> io::Result<()> {
    let Some(group) = group else {
        return file.set_permissions(Permissions::from_mode(mode));
    };
    fchown(file, None, Some(group))?;
    let extra = if file.metadata()?.is_dir() { DIR } else { FILE };
    file.set_permissions(Permissions::from_mode(mode | extra))
}

/// The same for a directory by path, never through a link.
///
/// # Errors
/// The kernel's.
pub fn apply_to_dir(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    apply(&dir, mode, group)
}
