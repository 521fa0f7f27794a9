//! OCI bundles of the busybox image, for the tour and the benches.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::{images, process};

/// Unpacks the busybox image's layers.
pub fn unpack_busybox(rootfs: &Path) -> Result<()> {
    fs::create_dir_all(rootfs)?;
    let folder = images::ensure(&Cache::open()?)?;
    let all = images::load(&folder)?;
    let busybox = all
        .iter()
        .find(|image| image.repository == "busybox")
        .context("no busybox")?;
    // the first blob is the configuration
    for layer in &busybox.blobs[1..] {
        process::run(
            Command::new("tar")
                .arg("-xzf")
                .arg(layer)
                .arg("-C")
                .arg(rootfs),
        )?;
    }
    Ok(())
}

/// A specification of a process in its own namespaces without a cgroup.
pub fn specification(arguments: &[&str], rootfs: &Path) -> Value {
    let capabilities = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN"];
    json!({
        "ociVersion": "1.2.0",
        "hostname": "berth-tour",
        "root": {"path": rootfs, "readonly": true},
        "process": {
            "cwd": "/",
            "args": arguments,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"},
                {"type": "network"},
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}
