//! The overlay of an image's layers (overlayfs.rst).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, FsContext};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::launch::{At, LaunchError, Stage};
use crate::plan::RootfsSource;
use crate::procfs::ProcFs;

/// fsconfig(2) takes strings of up to 255 bytes.
const MAX_VALUE: usize = 255;

/// Mounts the overlay, detached.
pub(super) fn mount(source: &RootfsSource, proc: &ProcFs) -> Result<OwnedFd, LaunchError> {
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
    match by_context(lower, upper, work) {
        // EINVAL: a kernel before 6.5 knows no `lowerdir+`. Anything else mount(2) would say again.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        done => return done.at(Stage::Rootfs, step),
    }
    by_data(lower, upper, work, proc).at(Stage::Rootfs, step)
}

/// One parameter a layer: no limit on their number.
fn by_context(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let context = FsContext::open("overlay")?;
    context.set("source", "overlay")?;
    let set = |key: &str, path: &Path| {
        if path.as_os_str().len() > MAX_VALUE {
            return Err(io::Error::from_raw_os_error(libc::EINVAL)); // the other way has no such limit
        }
        context.set(key, path)
    };
    for layer in lower {
        set("lowerdir+", layer)?;
    }
    set("upperdir", upper)?;
    set("workdir", work)?;
    context.mount(0)
}

/// All layers in mount(2)'s one page of data: each is opened, and named by its descriptor's number
/// relative to this process's own directory of descriptors, the shortest name there is.
fn by_data(lower: &[PathBuf], upper: &Path, work: &Path, proc: &ProcFs) -> io::Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty())
    };
    let layers = lower
        .iter()
        .map(|path| open(path))
        .collect::<Result<Vec<_>, _>>()?;
    let (upper_fd, work_fd) = (open(upper)?, open(work)?);
    let names: Vec<String> = layers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let (up, scratch) = (upper_fd.as_raw_fd(), work_fd.as_raw_fd());
    let data = format!(
        "lowerdir={},upperdir={up},workdir={scratch}",
        names.join(":")
    );
    let data = CString::new(data).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    rustix::process::fchdir(proc.own_descriptors()?)?;
    // mount(2) needs a place: over the upper directory itself, only here and only until it is copied.
    let mounted = mount::mount_by_data("overlay", upper, &data);
    rustix::process::chdir("/")?;
    mounted?;
    let copy = mount::clone_path(upper, false, true);
    rustix::mount::unmount(upper, UnmountFlags::DETACH)?;
    copy
}
