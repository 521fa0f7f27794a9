//! A bundle as an attacker's image and pod would give it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::arena::Arena;
use crate::container::{Container, Output};

/// Where the probe lies inside.
pub(crate) const PROBE: &str = "/bin/probe";

/// What Docker, containerd and Kubernetes grant by default.
pub(crate) const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What they hide by default.
pub(crate) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What they make read-only by default.
pub(crate) const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A folder with a root file system and a spec, both free to be spoilt.
pub(crate) struct Bundle<'a> {
    arena: &'a Arena,
    name: String,
    /// The spec, written when a container is made.
    pub(crate) spec: Value,
}

impl<'a> Bundle<'a> {
    /// A bundle named `name` in the arena that runs the probe with `arguments`.
    pub(crate) fn new(arena: &'a Arena, name: &str, arguments: &[&str]) -> Result<Self> {
        let bundle = Self {
            arena,
            name: name.to_owned(),
            spec: specification(arguments),
        };
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(bundle.inside(folder))?;
        }
        let inside = bundle.inside(PROBE);
        if !inside.exists() {
            fs::hard_link(arena.probe(), inside).context("cannot link the probe")?;
        }
        Ok(bundle)
    }

    /// The bundle's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.arena.folder().join(&self.name)
    }

    /// The host's name of a path inside the root file system.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        self.folder()
            .join("rootfs")
            .join(path.trim_start_matches('/'))
    }

    /// Sets the probe's arguments.
    pub(crate) fn arguments(&mut self, arguments: &[&str]) -> &mut Self {
        self.spec["process"]["args"] = json!(with_probe(arguments));
        self
    }

    /// Adds a mount.
    pub(crate) fn mount(&mut self, mount: Value) -> &mut Self {
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.push(mount);
        }
        self
    }

    /// Binds a folder or file of the host.
    pub(crate) fn bind(&mut self, source: &Path, destination: &str) -> &mut Self {
        self.mount(json!({
            "destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"],
        }))
    }

    /// Takes the mount on `destination` away.
    pub(crate) fn without_mount(&mut self, destination: &str) -> &mut Self {
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != destination);
        }
        self
    }

    /// Grants these capabilities and no others.
    pub(crate) fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        self.spec["process"]["capabilities"] =
            json!({"bounding": names, "effective": names, "permitted": names});
        self
    }

    /// Writes the spec, and gives a container of it a name.
    pub(crate) fn container(&self) -> Result<Container<'a>> {
        fs::write(self.folder().join("config.json"), self.spec.to_string())?;
        Ok(Container::new(self.arena, &self.name, &self.folder()))
    }

    /// Runs a container to its end.
    pub(crate) fn run(&self) -> Result<Output> {
        self.container()?.run()
    }

    /// A container that has been started; an error if the runtime refuses.
    pub(crate) fn start(&self) -> Result<Container<'a>> {
        let container = self.container()?;
        container.create()?.expect("create")?;
        container.call(&["start", "ID"])?.expect("start")?;
        Ok(container)
    }
}

/// The probe's path and its arguments.
pub(crate) fn with_probe<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [PROBE]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect()
}

fn specification(arguments: &[&str]) -> Value {
    json!({
        // the oldest peer knows this version
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "attacker",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": with_probe(arguments),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": DEFAULT_CAPABILITIES,
                "effective": DEFAULT_CAPABILITIES,
                "permitted": DEFAULT_CAPABILITIES,
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}
