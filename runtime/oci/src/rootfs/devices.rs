//! Device nodes and the links in `/dev`.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount;
use berth_sys::root::open_host_nofollow;
use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::Assembly;
use crate::launch::{At, LaunchError, Stage};
use crate::plan::{DeviceKind, DevicePlan, MountSource};

/// Links every container has (config-linux.md, "/dev symbolic links"): name, target.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Opens the host's null device, checked by what it is, not by its name (CVE-2025-31133).
pub(super) fn open_host_null() -> Result<OwnedFd, LaunchError> {
    open_host_device(
        Path::new("/dev/null"),
        FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    )
}

fn open_host_device(path: &Path, kind: FileType, device: Dev) -> Result<OwnedFd, LaunchError> {
    let step = || format!("open the host's `{}`", path.display());
    let fd = open_host_nofollow(path).at(Stage::Rootfs, step)?;
    let stat = rustix::fs::fstat(&fd).at(Stage::Rootfs, step)?;
    if FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == device {
        return Ok(fd);
    }
    Err(LaunchError::refused(
        Stage::Rootfs,
        step(),
        "it is not that device",
    ))
}

impl Assembly<'_> {
    /// Makes all device nodes of the plan, and the links; nothing of it in a `/dev` of the host.
    pub(crate) fn make_devices(&self) -> Result<(), LaunchError> {
        let of_host = self.shows_hosts_dev();
        let dev = || "open `/dev`".to_owned();
        self.root.mkdir_all("/dev", 0o755).at(Stage::Rootfs, dev)?;
        let folder = self
            .root
            .resolve_no_symlinks("/dev")
            .at(Stage::Rootfs, dev)?;
        let devices = self.plan.devices.iter();
        for device in devices.filter(|device| !(of_host && device.path.starts_with("/dev"))) {
            let name = device
                .path
                .strip_prefix("/dev")
                .ok()
                .filter(|name| name.components().count() == 1);
            match name {
                Some(name) => self.make_device(device, &folder, name)?,
                None => {
                    let step = || format!("make the folder of `{}`", device.path.display());
                    let (mut folder, name) = self
                        .root
                        .parent(&device.path, 0o755)
                        .at(Stage::Rootfs, step)?;
                    if let Some(parent) = device.path.parent() {
                        folder = self.open_target(parent).at(Stage::Rootfs, step)?;
                    }
                    self.make_device(device, &folder, Path::new(&name))?;
                }
            }
        }
        for (name, target) in LINKS.iter().filter(|_| !of_host) {
            match rustix::fs::symlinkat(*target, &folder, *name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => {
                    return Err(errno).at(Stage::Rootfs, || format!("link `/dev/{name}`"));
                }
            }
        }
        Ok(())
    }

    /// Whether `/dev` is a bind mount: what is made there would be left on the host.
    fn shows_hosts_dev(&self) -> bool {
        let mut mounts = self.plan.mounts.iter().rev();
        let shown = mounts.find(|mount| {
            let remount = matches!(mount.source, MountSource::Remount { .. });
            mount.target == Path::new("/dev") && !remount
        });
        shown.is_some_and(|mount| matches!(mount.source, MountSource::Bind { .. }))
    }

    fn make_device(
        &self,
        device: &DevicePlan,
        folder: &OwnedFd,
        name: &Path,
    ) -> Result<(), LaunchError> {
        let step = || format!("make device `{}`", device.path.display());
        let (kind, number) = node(device);
        match rustix::fs::mknodat(folder, name, kind, Mode::from_raw_mode(device.mode), number) {
            Ok(()) => {
                let owner = (
                    Some(Uid::from_raw(device.uid)),
                    Some(Gid::from_raw(device.gid)),
                );
                let nofollow = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(folder, name, owner.0, owner.1, nofollow)
                    .at(Stage::Rootfs, step)
            }
            Err(Errno::EXIST) => check_existing(device, folder, name),
            // In a user namespace, or without CAP_MKNOD: the host's own node, if it is that device.
            Err(Errno::PERM) => {
                let source = open_host_device(&device.path, kind, number)?;
                let copy = mount::clone_fd(&source, false).at(Stage::Rootfs, step)?;
                self.root
                    .ensure_file(&device.path, 0o644)
                    .at(Stage::Rootfs, step)?;
                let target = self.open_target(&device.path).at(Stage::Rootfs, step)?;
                mount::attach(&copy, &target).at(Stage::Rootfs, step)
            }
            Err(errno) => Err(errno).at(Stage::Rootfs, step),
        }
    }
}

fn node(device: &DevicePlan) -> (FileType, Dev) {
    let kind = match device.kind {
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    (kind, rustix::fs::makedev(device.major, device.minor))
}

/// What stands there already (from the image, or a bind mount of `/dev`) must be the device asked for.
fn check_existing(device: &DevicePlan, folder: &OwnedFd, name: &Path) -> Result<(), LaunchError> {
    let step = || format!("make device `{}`", device.path.display());
    let stat =
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).at(Stage::Rootfs, step)?;
    let (kind, number) = node(device);
    let same = kind == FileType::Fifo || stat.st_rdev == number;
    if FileType::from_raw_mode(stat.st_mode) == kind && same {
        return Ok(());
    }
    Err(LaunchError::refused(
        Stage::Rootfs,
        step(),
        "something else has that name",
    ))
}
