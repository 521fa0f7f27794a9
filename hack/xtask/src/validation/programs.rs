//! The validation programs, built once from their Go module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{Apt, TRIXIE};
use crate::cache::Cache;
use crate::{peers, preflight, process};

/// The Go module and the releases of all it needs: the module itself names none. The
/// runtime-spec is the last one that the programs compile with.
const MODULE: &str = include_str!("go.mod.txt");
const SUMS: &str = include_str!("go.sum.txt");
const PATH: &str = "github.com/opencontainers/runtime-tools";
/// The minor release of Go that the module file names.
const GO: u32 = 23;
/// What each program unpacks and what it runs inside.
pub const BESIDE: [&str; 2] = ["rootfs-amd64.tar.gz", "runtimetest"];

/// The folder with the programs, and with what they need in their working folder.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let recipe = format!("{MODULE}{SUMS}");
    cache
        .section("peers")?
        .artifact("validation", &recipe, |into| {
            let go = go(cache)?;
            eprintln!("xtask: building the validation programs of runtime-tools; this takes 20 s");
            build(&go, into)
        })
}

/// This machine's Go, or Debian trixie's unpacked into the cache.
fn go(cache: &Cache) -> Result<PathBuf> {
    if let Some(go) = peers::go_at_least(GO) {
        return Ok(go);
    }
    let unpacked = cache.artifact("go", TRIXIE, |into| {
        let why = "builds the OCI validation programs; unpacked, not installed";
        preflight::say("golang-go", why);
        Apt::suite(cache, TRIXIE)?.extract(&["golang-go"], into)
    })?;
    Ok(unpacked.join("usr/lib/go/bin/go"))
}

/// The names of the programs in the folder.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !BESIDE.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn build(go: &Path, into: &Path) -> Result<()> {
    let module = tempfile::tempdir()?;
    fs::write(module.path().join("go.mod"), MODULE)?;
    fs::write(module.path().join("go.sum"), SUMS)?;
    let command = || {
        let mut command = Command::new(go);
        command
            .current_dir(module.path())
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod -buildvcs=false")
            .env("CGO_ENABLED", "0");
        command
    };
    process::output(command().args(["mod", "download", PATH]))?;
    let source = process::output(command().args(["list", "-m", "-f", "{{.Dir}}", PATH]))?;
    let rootfs = Path::new(source.trim()).join(BESIDE[0]);
    fs::copy(&rootfs, into.join(BESIDE[0])).context("the module has no root file system")?;
    let (validation, test) = (
        format!("{PATH}/validation/..."),
        format!("{PATH}/cmd/runtimetest"),
    );
    let mut build = command();
    build
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(into)
        .args([validation, test]);
    process::output(&mut build).context("cannot build the validation programs")?;
    Ok(())
}
