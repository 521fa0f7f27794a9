//! The overlay of an image's layers (overlayfs.rst).
//!
//! It is always mounted with the rights of the host's user namespace: one mounted inside another
//! ignores `trusted.overlay.opaque`, so that deleted files reappear. For a container with a user
//! namespace every layer is id-mapped (Linux 5.19): on disk ids are those of the image.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, FsContext};
use berth_sys::{creds, idmap};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::origin::Users;
use crate::launch::{At, LaunchError, Stage};
use crate::plan::RootfsSource;
use crate::procfs::ProcFs;

/// fsconfig(2) takes strings of up to 255 bytes.
const MAX_VALUE: usize = 255;

/// Mounts the overlay, detached. Called in a mount table that is cut off from the host's.
pub(super) fn mount(
    source: &RootfsSource,
    users: Option<Users<'_>>,
) -> Result<OwnedFd, LaunchError> {
    let RootfsSource::Overlay {
        lower, upper, work, ..
    } = source
    else {
        return Err(LaunchError::refused(
            Stage::Rootfs,
            "mount the layers",
            "the root is a directory",
        ));
    };
    let step = || format!("mount {} layers as overlay", lower.len());
    let layers = Layers { lower, upper, work };
    let Some(users) = users else {
        return layers.join().at(Stage::Rootfs, step);
    };
    layers.map_ids(users)?;
    // What overlay itself makes in the upper layer must have an owner there, too: root's.
    let (_, ids) = users;
    let root = idmap::outside(&ids.uids, 0).zip(idmap::outside(&ids.gids, 0));
    let (uid, gid) = root.ok_or_else(|| {
        let why = "linux.uidMappings and linux.gidMappings are needed for layers";
        LaunchError::refused(Stage::Rootfs, step(), why)
    })?;
    creds::with_fs_ids(uid, gid, || layers.join())
        .at(Stage::Rootfs, || format!("act as user {uid} of the layers"))?
        .at(Stage::Rootfs, step)
}

/// Directories to be joined.
struct Layers<'a> {
    /// Topmost first.
    lower: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
}

impl Layers<'_> {
    fn join(&self) -> io::Result<OwnedFd> {
        match self.by_context() {
            // EINVAL: a kernel before 6.5 knows no `lowerdir+`. Anything else mount(2) would say again.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            done => return done,
        }
        self.by_data()
    }

    /// One parameter a layer: no limit on their number.
    fn by_context(&self) -> io::Result<OwnedFd> {
        let context = FsContext::open("overlay")?;
        context.set("source", "overlay")?;
        let set = |key: &str, path: &Path| {
            if path.as_os_str().len() > MAX_VALUE {
                return Err(io::Error::from_raw_os_error(libc::EINVAL)); // the other way has no such limit
            }
            context.set(key, path)
        };
        for layer in self.lower {
            set("lowerdir+", layer)?;
        }
        set("upperdir", self.upper)?;
        set("workdir", self.work)?;
        context.mount(0)
    }

    /// All layers in mount(2)'s one page of data: each is opened, and named by its descriptor's number
    /// relative to this process's own directory of descriptors, the shortest name there is.
    fn by_data(&self) -> io::Result<OwnedFd> {
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, path, flags, Mode::empty())
        };
        let layers = self
            .lower
            .iter()
            .map(|path| open(path))
            .collect::<Result<Vec<_>, _>>()?;
        let (upper_fd, work_fd) = (open(self.upper)?, open(self.work)?);
        let names: Vec<String> = layers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let (up, scratch) = (upper_fd.as_raw_fd(), work_fd.as_raw_fd());
        let data = format!(
            "lowerdir={},upperdir={up},workdir={scratch}",
            names.join(":")
        );
        let data = CString::new(data).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        rustix::process::fchdir(ProcFs::private()?.own_descriptors()?)?;
        // mount(2) needs a place: over the upper directory itself, only here and only until it is copied.
        let mounted = mount::mount_by_data("overlay", self.upper, &data);
        rustix::process::chdir("/")?;
        mounted?;
        let copy = mount::clone_path(self.upper, false, true);
        rustix::mount::unmount(self.upper, UnmountFlags::DETACH)?;
        copy
    }

    /// Puts an id-mapped copy over each directory, in this mount table only. Overlay wants upper
    /// and scratch directory on one mount: theirs is that of the folder above both.
    fn map_ids(&self, (namespace, _): Users<'_>) -> Result<(), LaunchError> {
        let above = self.upper.ancestors().find(|up| self.work.starts_with(up));
        let folders = above
            .into_iter()
            .chain(self.lower.iter().map(PathBuf::as_path));
        let step = |path: &Path| format!("map the ids of `{}`", path.display());
        let mut copies = Vec::new();
        for path in folders {
            // All copies before the first is attached: a mount is mapped only once.
            let copy = mount::clone_path(path, false, true).at(Stage::Rootfs, || step(path))?;
            mount::set_id_map(&copy, namespace, false).at(Stage::Rootfs, || step(path))?;
            copies.push((path, copy));
        }
        for (path, copy) in copies {
            let target = rustix::fs::openat(
                CWD,
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            );
            let target = target.at(Stage::Rootfs, || step(path))?;
            mount::attach(copy, target).at(Stage::Rootfs, || step(path))?;
        }
        Ok(())
    }
}
