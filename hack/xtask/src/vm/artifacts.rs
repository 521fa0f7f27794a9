//! What the reference VM is made of, built once from Debian packages.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::kernel;
use super::system::System;
use crate::apt::{Apt, TRIXIE};
use crate::cache::Cache;
use crate::preflight::{self, Need};
use crate::process;

const NEEDS: [Need; 2] = [
    Need {
        package: "mmdebstrap",
        program: "mmdebstrap",
        why: "makes the VM's root from packages",
    },
    Need {
        package: "util-linux",
        program: "setpriv",
        why: "QEMU ends with its parent",
    },
];

/// What runs on this machine, with the packages' own loader and libraries.
const TOOLS: [&str; 4] = ["qemu-system-x86", "seabios", "erofs-utils", "e2fsprogs"];

/// What the guest has beyond Debian's essential packages.
const GUEST: [&str; 22] = [
    "linux-image-amd64",
    "busybox-static",
    "xz-utils",
    "kmod",
    "procps",
    "nftables",
    "iproute2",
    "iptables",
    "conntrack",
    "apparmor",
    "kubernetes-client",
    "docker-registry",
    "crun",
    "runc",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "strace",
    "ca-certificates",
    "e2fsprogs",
    "util-linux-extra",
    "libc6-dev",
];

/// What the guest has on top for container engines and systemd.
const ENGINES: [&str; 15] = [
    "podman",
    "conmon",
    "catatonit",
    "netavark",
    "aardvark-dns",
    "buildah",
    "docker.io",
    "docker-cli",
    "uidmap",
    "skopeo",
    "jq",
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
];

/// Project quota, and no initialisation left for the guest to do.
const MKFS: [&str; 7] = [
    "-q",
    "-F",
    "-O",
    "quota,project",
    "-E",
    "quotatype=usrquota:grpquota:prjquota,lazy_itable_init=1,lazy_journal_init=1",
    "-m0",
];
const DATA_SIZE: u64 = 8 << 30;

/// Raised when the way the root is made changes.
const RECIPE: u32 = 2;

/// The parts of a VM, all read-only.
pub struct Artifacts {
    tools: PathBuf,
    /// Linux as Debian ships it.
    pub kernel: PathBuf,
    /// Busybox and the modules that mount the root; each run adds its init.
    pub initrd: PathBuf,
    /// The root file system, erofs.
    pub root: PathBuf,
    /// An empty sparse ext4 disk to copy.
    pub data: PathBuf,
}

impl Artifacts {
    /// Builds what is absent: about two minutes and 800 MB the first time, 1 GB with engines.
    pub fn ensure(cache: &Cache, system: System) -> Result<Self> {
        preflight::ensure(&NEEDS)?;
        let tools = cache.artifact(
            "vm-tools",
            &format!("{TRIXIE} {}", TOOLS.join(" ")),
            |into| {
                preflight::say(
                    "QEMU 10 and file system tools",
                    "the reference VM; not installed",
                );
                Apt::suite(cache, TRIXIE)?.extract(&TOOLS, into)
            },
        )?;
        let modules = include_str!("modules.sh");
        let mut packages = GUEST.to_vec();
        let mut name = "vm-root";
        if system.has_engines() {
            packages.extend(ENGINES);
            name = "vm-engines";
        }
        let recipe = format!("{RECIPE} {TRIXIE} {} {modules}", packages.join(" "));
        let parts = cache.artifact(name, &recipe, |into| {
            preflight::say("Debian trixie with Linux 6.12", "the reference VM's root");
            build_root(cache, &tools, &packages, into)
        })?;
        Ok(Self {
            tools,
            kernel: parts.join("kernel"),
            initrd: parts.join("base.initrd"),
            root: parts.join("root.erofs"),
            data: parts.join("data.img"),
        })
    }

    /// QEMU, and the folders it finds its firmware in.
    pub fn qemu(&self) -> Command {
        // dies with the thread that starts it, so that no VM outlives its runner
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        command
            .arg(loader(&self.tools))
            .arg("--library-path")
            .arg(libraries(&self.tools));
        command.arg(self.tools.join("usr/bin/qemu-system-x86_64"));
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.tools.join(folder));
        }
        command.env("QEMU_MODULE_DIR", libraries(&self.tools).join("qemu"));
        command
    }
}

fn build_root(cache: &Cache, tools: &Path, packages: &[&str], into: &Path) -> Result<()> {
    let source = Apt::suite(cache, TRIXIE)?.source()?;
    let hook = into.join("modules.sh");
    std::fs::write(&hook, include_str!("modules.sh"))?;
    std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755))?;
    let archive = into.join("root.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=apt", "--mode=root", "--format=tar"]);
    for folder in ["doc", "man", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    command.arg(format!("--include={}", packages.join(",")));
    command.arg(format!("--customize-hook={}", hook.display()));
    process::output(command.arg(TRIXIE).arg(&archive).arg(source))?;
    kernel::write_boot_files(&archive, into)?;
    process::output(
        tool(tools, "usr/bin/mkfs.erofs")
            .args(["--quiet", "-x-1", "-T0", "--tar=f"])
            .args([into.join("root.erofs"), archive.clone()]),
    )?;
    let data = into.join("data.img");
    std::fs::File::create(&data)?.set_len(DATA_SIZE)?;
    process::output(tool(tools, "usr/sbin/mkfs.ext4").args(MKFS).arg(&data))?;
    std::fs::remove_file(archive)?;
    Ok(())
}

fn tool(tools: &Path, program: &str) -> Command {
    let mut command = Command::new(loader(tools));
    command
        .arg("--library-path")
        .arg(libraries(tools))
        .arg(tools.join(program));
    command
}

fn loader(tools: &Path) -> PathBuf {
    tools.join("usr/lib64/ld-linux-x86-64.so.2")
}

fn libraries(tools: &Path) -> PathBuf {
    tools.join("usr/lib/x86_64-linux-gnu")
}
