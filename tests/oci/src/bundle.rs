//! A bundle in a temporary folder, whose root file system holds the probe and the libraries it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

use crate::runtime::{Container, Output};

/// Where the probe lies inside.
const PROBE: &str = "/bin/testinit";

/// A bundle; its folder goes with it.
#[derive(Debug)]
pub struct Bundle {
    folder: tempfile::TempDir,
    /// The spec, to be changed by a test before the first call.
    pub spec: Value,
}

impl Bundle {
    /// A bundle that runs `probe` (the path of `berth-testinit`) with `args`, as restricted as a
    /// Kubernetes container by default.
    pub fn new(probe: &str, args: &[&str]) -> anyhow::Result<Bundle> {
        let folder = tempfile::Builder::new()
            .prefix("berth-oci-test-")
            .tempdir()?;
        let root = folder.path().join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy(probe, root.join(PROBE.trim_start_matches('/')))?;
        for library in libraries(probe)? {
            let target = root.join(library.strip_prefix("/")?);
            fs::create_dir_all(target.parent().context("a library has a folder")?)?;
            fs::copy(&library, target)?;
        }
        Ok(Bundle {
            folder,
            spec: spec(args),
        })
    }

    /// Another bundle's worth of spec changes in one call.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Bundle {
        change(&mut self.spec);
        self
    }

    /// The bundle's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root file system.
    pub fn root(&self) -> PathBuf {
        self.folder().join("rootfs")
    }

    /// The runtime's state root for this bundle alone.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Writes the spec and names a container.
    pub fn container(&self) -> anyhow::Result<Container<'_>> {
        fs::write(self.folder().join("config.json"), self.spec.to_string())?;
        Ok(Container::new(self))
    }

    /// Runs the container to its end.
    pub fn run(&self) -> anyhow::Result<Output> {
        self.container()?.call(&["run", "ID"])
    }
}

/// What the loader would load, and the loader.
fn libraries(program: &str) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

fn spec(args: &[&str]) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"];
    let all: Vec<&str> = [PROBE].iter().chain(args).copied().collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "hostname": "probe",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": all,
            "env": ["PATH=/bin", "A=1"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/no-such-path"],
            "readonlyPaths": ["/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
