//! crun: Debian trixie's with trixie's libraries, else the host's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Peer;
use crate::apt::{Apt, TRIXIE};
use crate::cache::Cache;
use crate::preflight::{self, Need};
use crate::process;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const HOSTS: [Need; 1] = [Need {
    package: "crun",
    program: "crun",
    why: "the OCI runtime in C",
}];

/// The OCI runtime in C, the fastest peer.
pub fn crun(cache: &Cache) -> Result<Peer> {
    match of_trixie(cache) {
        Ok(peer) => Ok(peer),
        Err(error) => {
            eprintln!("xtask: no crun of {TRIXIE} ({error:#}); the host's then");
            of_host()
        }
    }
}

/// The package's program, changed to load the libraries it came with: started through
/// their loader it could not find itself at `/proc/self/exe`, which it executes again.
fn of_trixie(cache: &Cache) -> Result<Peer> {
    let peers = cache.section("peers")?;
    let root = peers.artifact("crun-root", TRIXIE, |into| {
        preflight::say("crun", "the newest one of Debian; unpacked, not installed");
        Apt::suite(cache, TRIXIE)?.extract(&["crun", "patchelf"], into)
    })?;
    let recipe = root.display().to_string();
    let folder = peers.artifact("crun", &recipe, |into| {
        let program = into.join("crun");
        fs::copy(root.join("usr/bin/crun"), &program).context("the package has no crun")?;
        patch(&root, &program)?;
        Peer::note_version(into, &version(&program)?)
    })?;
    Peer::open("crun", &folder, "")
}

fn patch(root: &Path, program: &Path) -> Result<()> {
    let (loader, libraries) = (root.join(LOADER), root.join(LIBRARIES));
    let mut command = Command::new(&loader);
    command
        .arg("--library-path")
        .arg(&libraries)
        .arg(root.join("usr/bin/patchelf"))
        .arg("--set-interpreter")
        .arg(&loader)
        // DT_RPATH: unlike DT_RUNPATH it holds for the libraries' own libraries too
        .arg("--force-rpath")
        .arg("--set-rpath")
        .arg(&libraries)
        .arg(program);
    process::output(&mut command).map(|_| ())
}

fn of_host() -> Result<Peer> {
    preflight::ensure(&HOSTS)?;
    let program = process::find("crun").context("no crun")?;
    Ok(Peer {
        name: "crun",
        version: version(&program)?,
        folder: program.parent().context("crun is in no folder")?.into(),
    })
}

fn version(program: &Path) -> Result<String> {
    let text = process::output(Command::new(program).arg("--version"))?;
    let first = text.lines().next().unwrap_or_default();
    let version = first.rsplit(' ').next().unwrap_or_default();
    Ok(version.to_owned())
}
