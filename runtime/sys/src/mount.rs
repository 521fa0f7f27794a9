//! The mount API by descriptors: clone a tree, make a file system, set attributes, attach.
//!
//! A mount is prepared detached and moved onto a target that is already open, so no path is
//! walked a second time between the check and the mount (mount_setattr(2), open_tree(2), fsopen(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// `MOUNT_ATTR_*` bits of one mount (not of its file system), linux/mount.h.
pub mod attr {
    /// No writes through this mount.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits and file capabilities are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field of access-time bits; clear it whole when setting one of them.
    pub const ATIME: u64 = 0x70;
    /// Access times as relatime does (the absence of the other two).
    pub const RELATIME: u64 = 0x0;
    /// Access times are not written.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always written.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times for directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are translated by a user namespace; only by [`super::set_id_map`], and never cleared.
    pub(super) const IDMAP: u64 = 0x10_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
    /// Every bit which a bind mount may have changed by options.
    pub const ALL: u64 = RDONLY | NOSUID | NODEV | NOEXEC | ATIME | NODIRATIME | NOSYMFOLLOW;
}

/// How mounts made below this one travel between copies of it (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the peers, not to them.
    Slave,
    /// Neither.
    Private,
    /// Neither, and it cannot be bind mounted.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A detached copy of the mount at `path` (with what is mounted below it, if `recursive`).
/// The last component may be a symbolic link only if `follow`.
pub fn clone_path(path: &Path, recursive: bool, follow: bool) -> io::Result<OwnedFd> {
    let mut flags = clone_flags(recursive);
    if !follow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// A detached copy of the mount which `fd` lies on, rooted at `fd`.
pub fn clone_fd(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(
        fd,
        "",
        clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH,
    )?)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags | OpenTreeFlags::AT_RECURSIVE
    } else {
        flags
    }
}

/// Attaches the detached mount `mount` onto the open file or directory `target`.
/// `mount` stays usable as a handle to the mount's root.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// A change of the attributes of a mount (mount_setattr(2), Linux 5.12).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Bits of [`attr`] to set.
    pub set: u64,
    /// Bits of [`attr`] to clear, first.
    pub clear: u64,
    /// The new propagation, if it changes.
    pub propagation: Option<Propagation>,
}

impl AttributeChange {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == AttributeChange::default()
    }
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct RawMountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount whose root `mount` is, and with `recursive` all below it.
pub fn set_attributes(
    mount: impl AsFd,
    change: AttributeChange,
    recursive: bool,
) -> io::Result<()> {
    let raw = RawMountAttr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    mount_setattr(mount.as_fd(), &raw, recursive)
}

/// Translates the ids of a detached mount, and with `recursive` of all below it, by the maps of the
/// user namespace `namespace`: an id inside it is what the file system stores, the id outside what
/// programs see (mount_setattr(2), "ID-mapped mounts"; Linux 5.12).
///
/// # Errors
/// `EINVAL` when the file system cannot be id-mapped or the mount is attached already, `EPERM` when
/// it is id-mapped already or belongs to another user namespace.
pub fn set_id_map(mount: impl AsFd, namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let raw = RawMountAttr {
        attr_set: attr::IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    mount_setattr(mount.as_fd(), &raw, recursive)
}

fn mount_setattr(mount: BorrowedFd<'_>, raw: &RawMountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let fd = mount.as_raw_fd();
    let raw = std::ptr::from_ref(raw);
    // SAFETY: the path is an empty C string and `raw` points at a mount_attr of the size passed; both outlive
    // the call, the kernel only reads them; `fd` is borrowed and open.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            raw,
            size_of::<RawMountAttr>(),
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A file system being configured (fsopen(2)); becomes a detached mount by [`FsContext::mount`].
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
}

impl FsContext {
    /// Starts with a file system type, such as `tmpfs`.
    pub fn open(kind: &str) -> io::Result<FsContext> {
        Ok(FsContext {
            fd: rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?,
        })
    }

    /// Starts with the file system that the mount at `root` shows, to change its parameters
    /// (fspick(2)); to be ended by [`FsContext::reconfigure`].
    pub fn pick(root: impl AsFd) -> io::Result<FsContext> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        Ok(FsContext {
            fd: rustix::mount::fspick(root, "", flags)?,
        })
    }

    /// Applies the parameters to the file system that was picked.
    pub fn reconfigure(self) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_reconfigure(&self.fd)?)
    }

    /// Sets `key=value`; the kernel takes up to 255 bytes of value.
    pub fn set(&self, key: &str, value: impl rustix::path::Arg) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_set_string(&self.fd, key, value)?)
    }

    /// Sets a flag without value.
    pub fn set_flag(&self, key: &str) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_set_flag(&self.fd, key)?)
    }

    /// Sets `key` to the open file `fd` (for parameters that take a descriptor).
    pub fn set_fd(&self, key: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_set_fd(&self.fd, key, fd)?)
    }

    /// Makes the file system and a detached mount of it with the given [`attr`] bits.
    pub fn mount(self, attributes: u64) -> io::Result<OwnedFd> {
        rustix::mount::fsconfig_create(&self.fd)?;
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        Ok(rustix::mount::fsmount(
            &self.fd,
            FsMountFlags::FSMOUNT_CLOEXEC,
            attributes,
        )?)
    }

    /// What the kernel says about the last failure, if anything (it queues messages on the context).
    pub fn message(&self) -> Option<String> {
        let mut buffer = [0u8; 512];
        let length = rustix::io::read(&self.fd, &mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
    }
}

/// mount(2) with a file system type and a data string, for what the descriptor API cannot express:
/// overlay before Linux 6.5 with relative layer names, resolved from the working directory.
pub fn mount_by_data(kind: &str, target: &Path, data: &std::ffi::CStr) -> io::Result<()> {
    Ok(rustix::mount::mount(
        kind,
        target,
        kind,
        rustix::mount::MountFlags::empty(),
        data,
    )?)
}

/// Makes the open directory `new_root` the root of this mount namespace and detaches the old one
/// (pivot_root(2), "`pivot_root(".", ".")`"). Afterwards the working directory is the new root.
pub fn pivot_into(new_root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(new_root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Makes the mount `new_root`, which lies over `/`, this process's root: for a root on the ramdisk
/// that the kernel booted from, which pivot_root(2) refuses. The old root stays below it in the mount
/// table; only a process that may chroot(2) out of its root could reach it.
pub fn change_root(new_root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(new_root)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}
