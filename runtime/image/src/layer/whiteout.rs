//! Whiteouts: the image-spec's `.wh.` names become what overlayfs understands.
//!
//! image-spec "layer.md#whiteouts": `.wh.<name>` hides `<name>` of the layers below,
//! `.wh..wh..opq` hides everything below its directory. overlayfs: a character device 0/0, and the
//! xattr `trusted.overlay.opaque` = `y` (Documentation/filesystems/overlayfs.rst).

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, Stat, XattrFlags};

use super::tree;

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
pub(crate) const OPAQUE_XATTR: &CStr = c"trusted.overlay.opaque";

/// What an archive member's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// An ordinary member.
    None,
    /// Hide this name of the layers below.
    Hide(&'a [u8]),
    /// Hide everything the layers below have in the member's directory.
    Opaque,
    /// Book-keeping of aufs: passed over.
    Bookkeeping,
    /// A whiteout of no name, `.` or `..`.
    Malformed,
}

/// Reads the last component of a member's path.
pub(crate) fn marker(name: &[u8]) -> Marker<'_> {
    if name == OPAQUE {
        return Marker::Opaque;
    }
    if name.starts_with(META_PREFIX) {
        return Marker::Bookkeeping;
    }
    match name.strip_prefix(PREFIX) {
        None => Marker::None,
        Some(b"" | b"." | b"..") => Marker::Malformed,
        Some(hidden) => Marker::Hide(hidden),
    }
}

/// Whether a directory on the way to a member is a whiteout name, which nothing can lie under.
pub(crate) fn is_reserved(component: &[u8]) -> bool {
    component.starts_with(PREFIX)
}

/// Whether this is overlayfs's whiteout.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    tree::file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Hides `name` of the layers below. What this layer itself has at `name` stays: a whiteout speaks
/// of the layers below only.
pub(crate) fn hide(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match tree::look(dir, name)? {
        None => Ok(rustix::fs::mknodat(
            dir,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )?),
        Some(stat) if tree::file_type(&stat) == FileType::Directory => {
            make_opaque(&tree::open_dir_at(dir, name)?)
        }
        Some(_) => Ok(()),
    }
}

/// Hides everything the layers below have in `dir`.
pub(crate) fn make_opaque(dir: &impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        dir,
        OPAQUE_XATTR,
        b"y",
        XattrFlags::empty(),
    )?)
}

/// Whether `dir` hides what is below it.
pub(crate) fn is_opaque(dir: &impl std::os::fd::AsFd) -> io::Result<bool> {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value[..]) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (name, expected) in [
            (&b"file"[..], Marker::None),
            (b".wh", Marker::None),
            (b".wh.a", Marker::Hide(b"a")),
            (b".wh..a", Marker::Hide(b".a")),
            (b".wh.", Marker::Malformed),
            (b".wh..", Marker::Malformed),
            (b".wh...", Marker::Malformed),
            (b".wh..wh..opq", Marker::Opaque),
            (b".wh..wh.plnk", Marker::Bookkeeping),
            (b".wh..wh.", Marker::Bookkeeping),
        ] {
            assert_eq!(marker(name), expected, "{}", String::from_utf8_lossy(name));
        }
    }
}
