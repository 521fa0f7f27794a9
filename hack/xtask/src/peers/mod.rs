//! `cargo xtask peers`: what a user would pick instead of berth, had once and kept.
//!
//! Newest first: Go modules where a Go that can build them is found, else Debian's packages.

mod crun;
mod debian;
mod go;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cache::Cache;
use go::Module;

pub use crun::crun;
pub use go::at_least as go_at_least;

/// Flags of `cargo xtask peers`.
#[derive(clap::Args)]
pub struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A peer's programs in one folder.
pub struct Peer {
    /// What it is called.
    pub name: &'static str,
    /// Its release, without a leading `v`.
    pub version: String,
    /// Where its programs are.
    pub folder: PathBuf,
}

/// A peer, and where it comes from.
struct Source {
    name: &'static str,
    module: Module,
    package: debian::Package,
}

const RUNC: Source = Source {
    name: "runc",
    module: Module {
        version: "1.5.2",
        tags: "seccomp,urfave_cli_no_docs",
        cgo: true,
        commands: &["github.com/opencontainers/runc"],
    },
    package: debian::Package {
        name: "runc",
        programs: "usr/sbin",
    },
};

const CONTAINERD: Source = Source {
    name: "containerd",
    module: Module {
        version: "2.4.2",
        tags: "",
        cgo: false,
        commands: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
    },
    package: debian::Package {
        name: "containerd",
        programs: "usr/bin",
    },
};

const CNI_PLUGINS: Source = Source {
    name: "cni-plugins",
    module: Module {
        version: "1.9.1",
        tags: "",
        cgo: false,
        commands: &[
            "github.com/containernetworking/plugins/plugins/main/bridge",
            "github.com/containernetworking/plugins/plugins/main/loopback",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "github.com/containernetworking/plugins/plugins/meta/portmap",
        ],
    },
    package: debian::Package {
        name: "containernetworking-plugins",
        programs: "usr/lib/cni",
    },
};

/// Has every peer and prints name, version and folder.
pub fn run(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    for have in [crun, runc, containerd, cni_plugins] {
        let Peer {
            name,
            version,
            folder,
        } = have(&cache)?;
        if options.json {
            let line = json!({"name": name, "version": version, "path": folder});
            println!("{line}");
        } else {
            println!("{name:<12} {version:<20} {}", folder.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The reference OCI runtime, in Go.
pub fn runc(cache: &Cache) -> Result<Peer> {
    RUNC.have(cache)
}

/// containerd with its shim and `ctr`.
pub fn containerd(cache: &Cache) -> Result<Peer> {
    CONTAINERD.have(cache)
}

/// The reference plugins bridge, loopback, host-local and portmap.
pub fn cni_plugins(cache: &Cache) -> Result<Peer> {
    CNI_PLUGINS.have(cache)
}

impl Source {
    fn have(&self, cache: &Cache) -> Result<Peer> {
        let cache = cache.section("peers")?;
        match go::find() {
            Some(go) => {
                let recipe = format!("go {:?}", self.module);
                let folder = cache.artifact(self.name, &recipe, |into| {
                    self.module.build(&go, self.name, into)
                })?;
                Peer::open(self.name, &folder, "")
            }
            None => self.package.have(&cache, self.name),
        }
    }
}

impl Peer {
    /// The peer that an artifact holds, with its programs at `below`.
    fn open(name: &'static str, artifact: &Path, below: &str) -> Result<Self> {
        let file = artifact.join("version");
        let version =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self {
            name,
            version,
            // without the slash that an empty last component leaves
            folder: artifact.join(below).components().collect(),
        })
    }

    /// Notes which version an artifact holds.
    fn note_version(artifact: &Path, version: &str) -> Result<()> {
        Ok(fs::write(artifact.join("version"), version)?)
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
