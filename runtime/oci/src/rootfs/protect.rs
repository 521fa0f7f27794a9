//! Masked and read-only paths.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount::{self, AttributeChange, FsContext, attr};
use rustix::fs::FileType;

use super::Assembly;
use crate::launch::{At, LaunchError, Stage};

/// A mask can neither be written nor executed, and no device in it opened; for a file, whose mask
/// is the null device, the last does not hold.
const MASK: u64 = attr::RDONLY | attr::NOSUID | attr::NOEXEC;

impl Assembly<'_> {
    /// Hides the masked paths and makes the others read-only.
    pub(crate) fn protect_paths(&self) -> Result<(), LaunchError> {
        let mut empty = None;
        for path in &self.plan.masked {
            let step = || format!("mask `{}`", path.display());
            if let Some(target) = self.existing(path).at(Stage::Rootfs, step)? {
                self.mask(&target, &mut empty).at(Stage::Rootfs, step)?;
            }
        }
        for path in &self.plan.readonly_paths {
            let step = || format!("make `{}` read-only", path.display());
            if let Some(target) = self.existing(path).at(Stage::Rootfs, step)? {
                let copy = mount::clone_fd(&target, true).at(Stage::Rootfs, step)?;
                let change = AttributeChange {
                    set: attr::RDONLY,
                    ..AttributeChange::default()
                };
                mount::set_attributes(&copy, change, true).at(Stage::Rootfs, step)?;
                mount::attach(&copy, &target).at(Stage::Rootfs, step)?;
            }
        }
        Ok(())
    }

    /// What does not exist needs no protection.
    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match self.root.resolve(path) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A directory disappears behind an empty one, which all masks of the container share
    /// (a file system of its own for each costs); a file behind the null device.
    fn mask(&self, target: &OwnedFd, empty: &mut Option<OwnedFd>) -> io::Result<()> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(target)?.st_mode);
        if kind != FileType::Directory {
            let copy = mount::clone_fd(&self.null, false)?;
            mount::set_attributes(
                &copy,
                AttributeChange {
                    set: MASK,
                    ..AttributeChange::default()
                },
                false,
            )?;
            return mount::attach(&copy, target);
        }
        match empty {
            Some(first) => mount::attach(mount::clone_fd(&*first, false)?, target),
            None => {
                // Only an attached mount can be copied, so the first mask is the original.
                let first = empty_directory()?;
                mount::attach(&first, target)?;
                *empty = Some(first);
                Ok(())
            }
        }
    }
}

fn empty_directory() -> io::Result<OwnedFd> {
    let context = FsContext::open("tmpfs")?;
    for (key, value) in [
        ("source", "tmpfs"),
        ("size", "4k"),
        ("nr_inodes", "1"),
        ("mode", "555"),
    ] {
        context.set(key, value)?;
    }
    context.mount(MASK | attr::NODEV)
}
