//! The file-system steps of the launch's rootfs stage.
//!
//! Two parts: [`Sources`] are opened with the caller's rights over the host, [`Assembly`] attaches
//! them. With a user namespace the first happens outside, the second inside of it.
//!
//! Invariant: after [`Assembly::start`] every path inside the new root is resolved by
//! [`RootDir`], and every mount is made onto a descriptor that it returned.

mod copyup;
mod devices;
mod idmaps;
mod mounts;
mod origin;
mod overlay;
mod protect;
mod sources;
mod terminal;

pub(crate) use idmaps::MapNamespaces;
pub(crate) use origin::{Origin, Sources};
pub(crate) use terminal::open_terminal;

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount::{self, AttributeChange, Propagation};
use berth_sys::root::RootDir;
use rustix::fs::{CWD, Mode, OFlags};

use crate::fault;
use crate::launch::{At, LaunchError, Stage};
use crate::plan::RootfsPlan;
use sources::HostSource;

/// Magic number of sysfs (linux/magic.h).
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;

/// A root file system being assembled in the container's own mount namespace.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    plan: &'a RootfsPlan,
    root: RootDir,
    /// What mounts take from the host, see [`Sources`].
    sources: Vec<HostSource>,
    /// The host's null device, verified.
    null: OwnedFd,
}

impl<'a> Assembly<'a> {
    /// Attaches the bare root, in a mount table that is cut off from the host's.
    pub(crate) fn start(
        plan: &'a RootfsPlan,
        sources: Sources,
    ) -> Result<Assembly<'a>, LaunchError> {
        let Sources { root, mounts } = sources;
        #[cfg(feature = "test-util")]
        fault::leave_directory_open();
        let null = devices::open_host_null()?;
        mount::set_attributes(&root, cut(plan.propagation), true)
            .at(Stage::Rootfs, || "cut the root off".into())?;
        mount::attach(&root, open_top()?).at(Stage::Rootfs, || "attach the root".into())?;
        Ok(Assembly {
            plan,
            root: RootDir::from(root),
            sources: mounts,
            null,
        })
    }

    /// Makes the process's working directory, where it is missing; whether it can be entered shows later.
    pub(crate) fn make_working_directory(&self, cwd: &Path) -> Result<(), LaunchError> {
        if fault::is(fault::defence::DIRECTORY) {
            return Ok(());
        }
        let step = || format!("make the working directory `{}`", cwd.display());
        match self.root.resolve(cwd) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self
                .root
                .mkdir_all(cwd, 0o755)
                .at(Stage::Rootfs, step)
                .map(drop),
            done => done.at(Stage::Rootfs, step).map(drop),
        }
    }

    /// The finished root's descriptor.
    pub(crate) fn finish(self) -> OwnedFd {
        self.root.into()
    }

    /// Opens `path`, which earlier steps made; below the directories that the kernel's own file
    /// systems occupy no symbolic link is followed (CVE-2019-19921, CVE-2026-41579), and no link
    /// from elsewhere may lead into procfs or sysfs: what is mounted there would stand for the
    /// kernel's files (CVE-2025-52881).
    fn open_target(&self, path: &Path) -> std::io::Result<OwnedFd> {
        if is_kernel_place(path) {
            return self.root.resolve_no_symlinks(path);
        }
        let target = self.root.resolve(path)?;
        let magic = rustix::fs::fstatfs(&target)?.f_type;
        if magic == rustix::fs::PROC_SUPER_MAGIC || magic == SYSFS_MAGIC {
            return Err(rustix::io::Errno::LOOP.into());
        }
        Ok(target)
    }
}

/// A slave root goes on getting what the host mounts below it; any other is cut off whole, and what
/// it is to be it becomes at the end, so that no mount of the container reaches the host.
fn cut(wanted: Propagation) -> AttributeChange {
    let propagation = match wanted {
        Propagation::Slave => Propagation::Slave,
        _ => Propagation::Private,
    };
    AttributeChange {
        propagation: Some(propagation),
        ..AttributeChange::default()
    }
}

fn is_kernel_place(path: &Path) -> bool {
    ["/proc", "/sys", "/dev"]
        .iter()
        .any(|place| path.starts_with(place))
}

fn open_top() -> Result<OwnedFd, LaunchError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/", flags, Mode::empty()).at(Stage::Rootfs, || "open `/`".into())
}

/// Enters the working directory after the pivot. A path through `/proc/self/fd` and the like is
/// refused by the kernel, and a directory outside the root by the check of its name (CVE-2024-21626).
pub(crate) fn enter_working_directory(root: &OwnedFd, cwd: &Path) -> Result<(), LaunchError> {
    let step = || format!("enter the working directory `{}`", cwd.display());
    if fault::is(fault::defence::DIRECTORY) {
        return rustix::process::chdir(cwd).at(Stage::Rootfs, step);
    }
    let root = root.try_clone().at(Stage::Rootfs, step)?;
    let directory = RootDir::from(root).resolve(cwd).at(Stage::Rootfs, step)?;
    rustix::process::fchdir(&directory).at(Stage::Rootfs, step)?;
    let name = rustix::process::getcwd(Vec::new()).at(Stage::Rootfs, step)?;
    if name.to_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(LaunchError::refused(
        Stage::Rootfs,
        step(),
        "it lies outside the root",
    ))
}
