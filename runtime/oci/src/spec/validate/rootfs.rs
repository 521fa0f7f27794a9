//! `root`, devices, masked and read-only paths → [`RootfsPlan`].

use std::path::{Path, PathBuf};

use berth_sys::mount::Propagation;

use super::{Errors, mounts};
use crate::plan::{DeviceKind, DevicePlan, Namespaces, RootfsPlan, RootfsSource, Source};
use crate::spec::config::{Linux, LinuxDeviceType, Spec};

/// Devices that every container has (config-linux.md, "Default Devices"): path, major, minor.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(super) fn plan(
    spec: &Spec,
    linux: &Linux,
    source: &Source,
    namespaces: &Namespaces,
    errors: &mut Errors,
) -> RootfsPlan {
    let readonly = match &spec.root {
        Some(root) => root.readonly,
        None => {
            errors.add("root", "is missing");
            false
        }
    };
    let overlay_readonly = matches!(source.rootfs, RootfsSource::Overlay { readonly: true, .. });
    check_source(&source.rootfs, errors);
    RootfsPlan {
        source: source.rootfs.clone(),
        readonly: readonly || overlay_readonly,
        no_pivot: false,
        propagation: propagation(linux, errors),
        mounts: mounts::plan(spec, source, namespaces, errors),
        devices: devices(linux, errors),
        masked: paths("maskedPaths", &linux.masked_paths, errors),
        readonly_paths: paths("readonlyPaths", &linux.readonly_paths, errors),
    }
}

fn check_source(source: &RootfsSource, errors: &mut Errors) {
    let mut absolute = |path: &Path| {
        if !path.is_absolute() {
            errors.add("root.path", format!("`{}` is not absolute", path.display()));
        }
    };
    match source {
        RootfsSource::Path(path) => absolute(path),
        RootfsSource::Overlay {
            lower, upper, work, ..
        } => {
            lower
                .iter()
                .chain([upper, work])
                .for_each(|path| absolute(path));
            if lower.is_empty() {
                errors.add("root.path", "an overlay needs at least one layer");
            }
        }
    }
}

fn propagation(linux: &Linux, errors: &mut Errors) -> Propagation {
    match linux.rootfs_propagation.as_str() {
        "" | "private" | "rprivate" => Propagation::Private,
        "slave" | "rslave" => Propagation::Slave,
        "shared" | "rshared" => Propagation::Shared,
        "unbindable" | "runbindable" => Propagation::Unbindable,
        other => {
            errors.add(
                "linux.rootfsPropagation",
                format!("`{other}` is not a propagation type"),
            );
            Propagation::Private
        }
    }
}

fn paths(name: &str, paths: &[PathBuf], errors: &mut Errors) -> Vec<PathBuf> {
    let all = paths.iter().enumerate();
    all.map(|(index, path)| errors.inner_path(&format!("linux.{name}[{index}]"), path))
        .collect()
}

fn devices(linux: &Linux, errors: &mut Errors) -> Vec<DevicePlan> {
    let mut out: Vec<DevicePlan> = DEFAULT_DEVICES
        .iter()
        .map(|&(path, major, minor)| DevicePlan {
            path: path.into(),
            kind: DeviceKind::Character,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for (index, device) in linux.devices.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        let kind = match device.kind {
            LinuxDeviceType::Block => DeviceKind::Block,
            LinuxDeviceType::Character | LinuxDeviceType::Unbuffered => DeviceKind::Character,
            LinuxDeviceType::Fifo => DeviceKind::Fifo,
            LinuxDeviceType::All => {
                errors.add(format!("{field}.type"), "`a` is not a kind of device node");
                continue;
            }
        };
        let mut number = |name: &str, value: i64| {
            u32::try_from(value).unwrap_or_else(|_| {
                errors.add(
                    format!("{field}.{name}"),
                    format!("{value} is not a device number"),
                );
                0
            })
        };
        let (major, minor) = match kind {
            DeviceKind::Fifo => (0, 0),
            _ => (number("major", device.major), number("minor", device.minor)),
        };
        let path = errors.inner_path(&format!("{field}.path"), &device.path);
        out.retain(|other| other.path != path);
        out.push(DevicePlan {
            path,
            kind,
            major,
            minor,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        });
    }
    out
}
