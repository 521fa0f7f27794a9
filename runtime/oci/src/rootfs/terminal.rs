//! The container's own terminal: from its own devpts, by ioctl, never by a name in `/dev/pts`.

use std::os::fd::OwnedFd;

use berth_sys::root::RootDir;
use berth_sys::{mount, pty};
use rustix::fs::{FileType, OFlags};
use rustix::pty::OpenptFlags;

use super::Assembly;
use crate::fault;
use crate::launch::{At, LaunchError, Stage};

/// Magic number of devpts (linux/magic.h).
const DEVPTS_MAGIC: i64 = 0x1cd1;
/// Major number of devpts' slaves (admin-guide/devices.rst).
const SLAVE_MAJOR: u32 = 136;

/// Opens a terminal pair in the devpts of `root`; without one there, in that of the caller.
pub(crate) fn open_terminal(root: &RootDir) -> Result<pty::Pair, LaunchError> {
    let step = || "open a terminal".to_owned();
    let Ok(ptmx) = root.resolve_no_symlinks("/dev/pts/ptmx") else {
        return pty::open().at(Stage::Rootfs, step);
    };
    let in_devpts =
        rustix::fs::fstatfs(&ptmx).at(Stage::Rootfs, step)?.f_type as i64 == DEVPTS_MAGIC;
    let number = rustix::fs::fstat(&ptmx).at(Stage::Rootfs, step)?.st_rdev;
    if !in_devpts || number != rustix::fs::makedev(5, 2) {
        return Err(LaunchError::refused(
            Stage::Rootfs,
            step(),
            "`/dev/pts/ptmx` is not devpts' multiplexer",
        ));
    }
    let master = root
        .open_file("/dev/pts/ptmx", OFlags::RDWR, 0)
        .at(Stage::Rootfs, step)?;
    let same = rustix::fs::fstat(&master).at(Stage::Rootfs, step)?.st_rdev == number;
    rustix::io::ioctl_fionbio(&master, false).at(Stage::Rootfs, step)?;
    rustix::pty::unlockpt(&master).at(Stage::Rootfs, step)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).at(Stage::Rootfs, step)?;
    let stat = rustix::fs::fstat(&slave).at(Stage::Rootfs, step)?;
    let is_slave = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && rustix::fs::major(stat.st_rdev) == SLAVE_MAJOR;
    if !same || !is_slave {
        return Err(LaunchError::refused(
            Stage::Rootfs,
            step(),
            "what it opened is not a terminal of devpts",
        ));
    }
    Ok(pty::Pair {
        master: master.into(),
        slave,
    })
}

impl Assembly<'_> {
    /// Opens the terminal of the container's first process.
    pub(crate) fn open_terminal(&self) -> Result<pty::Pair, LaunchError> {
        open_terminal(&self.root)
    }

    /// Shows the terminal as `/dev/console`.
    pub(crate) fn bind_console(&self, slave: &OwnedFd) -> Result<(), LaunchError> {
        let step = || "bind the terminal on `/dev/console`".to_owned();
        let copy = mount::clone_fd(slave, false).at(Stage::Rootfs, step)?;
        let followed = self
            .root
            .ensure_file("/dev/console", 0o620)
            .at(Stage::Rootfs, step)?;
        let target = if fault::is(fault::defence::CONSOLE) {
            followed
        } else {
            self.open_target("/dev/console".as_ref())
                .at(Stage::Rootfs, step)?
        };
        mount::attach(&copy, &target).at(Stage::Rootfs, step)
    }
}
