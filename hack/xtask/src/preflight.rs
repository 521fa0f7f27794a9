//! What the tasks need on this machine: looked for, and installed when it is missing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::apt::{Apt, TRIXIE};
use crate::cache::Cache;
use crate::process;

/// A Debian package, the program that proves it is there, and why it is needed.
pub struct Need {
    pub package: &'static str,
    pub program: &'static str,
    pub why: &'static str,
}

/// What building needs.
pub const BUILD: [Need; 2] = [
    Need {
        package: "gcc",
        program: "gcc",
        why: "links the programs and compiles ring",
    },
    Need {
        package: "libc6-dev",
        program: "../lib/x86_64-linux-gnu/libc.a",
        why: "static programs",
    },
];

/// What running a node natively needs.
pub const NODE: [Need; 3] = [
    Need {
        package: "nftables",
        program: "nft",
        why: "Service and hostPort rules",
    },
    Need {
        package: "iproute2",
        program: "ip",
        why: "the leak check lists links",
    },
    Need {
        package: "util-linux",
        program: "setpriv",
        why: "children end with their parent",
    },
];

/// The oldest kubectl minor version the tour is written for.
const KUBECTL_MINOR: u32 = 30;

/// Says that something is fetched, and why.
pub fn say(what: &str, why: &str) {
    eprintln!("xtask: fetching {what}: {why}");
}

/// Installs the packages whose programs are missing; asks nothing.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs
        .iter()
        .filter(|need| process::find(need.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("xtask: installing {}: {}", need.package, need.why);
    }
    if process::find("apt-get").is_none() {
        let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
        bail!(
            "this machine has no apt-get: install {} by hand",
            names.join(", ")
        );
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "install", "--yes", "--no-install-recommends"])
            .args(missing.iter().map(|need| need.package));
        process::output(&mut command)
    };
    if install().is_err() {
        process::output(Command::new("apt-get").args(["-q", "update"]))?;
        install().context("apt-get cannot install what is missing")?;
    }
    Ok(())
}

/// A kubectl of version 1.30 or later: the host's, or Debian trixie's unpacked
/// into the cache.
pub fn kubectl(cache: &Cache) -> Result<PathBuf> {
    if let Some(found) = process::find("kubectl")
        && kubectl_minor(&found).is_some_and(|minor| minor >= KUBECTL_MINOR)
    {
        return Ok(found);
    }
    say(
        "kubernetes-client",
        "no kubectl of version 1.30 or later is found; unpacked, not installed",
    );
    let unpacked = cache.artifact("kubectl", TRIXIE, |into| {
        Apt::suite(cache, TRIXIE)?.extract(&["kubernetes-client"], into)
    })?;
    let program = unpacked.join("usr/bin/kubectl");
    match kubectl_minor(&program) {
        Some(minor) if minor >= KUBECTL_MINOR => Ok(program),
        _ => bail!("{} is not kubectl 1.30 or later", program.display()),
    }
}

fn kubectl_minor(program: &PathBuf) -> Option<u32> {
    let mut command = Command::new(program);
    let text = process::output(command.args(["version", "--client", "-o", "json"])).ok()?;
    let version: Value = serde_json::from_str(&text).ok()?;
    let minor = version["clientVersion"]["minor"].as_str()?;
    minor
        .trim_end_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .ok()
}
