//! The monitor of the last release: an upgrade leaves it running under today's daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::{dist, process};

/// Tells the tests which it is.
pub const VARIABLE: &str = "BERTH_FORMER_MONITOR";
const PROGRAM: &str = "berth-monitor";

/// The program at `given`, else that of the last tag before this commit, built once into the
/// cache; `None` where there is no release yet.
pub fn monitor(given: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(path) = given {
        let found = path.canonicalize();
        return found
            .map(Some)
            .with_context(|| format!("cannot use {}", path.display()));
    }
    let mut describe = git();
    describe.args(["describe", "--tags", "--abbrev=0"]);
    let Ok(tag) = process::output(describe.stderr(Stdio::null())) else {
        return Ok(None);
    };
    let tag = tag.trim();
    let built = Cache::open()?.artifact(&format!("monitor-{tag}"), tag, |into| build(tag, into))?;
    Ok(Some(built.join(PROGRAM)))
}

/// Builds the program from the sources of the tag, apart from this working copy.
fn build(tag: &str, into: &Path) -> Result<()> {
    let sources = into.join("sources");
    fs::create_dir(&sources)?;
    let mut archive = git()
        .args(["archive", tag])
        .stdout(Stdio::piped())
        .spawn()?;
    let text = archive.stdout.take().context("git has no output")?;
    process::run(Command::new("tar").arg("-xC").arg(&sources).stdin(text))?;
    ensure!(archive.wait()?.success(), "git cannot read {tag}");
    let mut cargo = dist::cargo();
    cargo
        .current_dir(&sources)
        .env("CARGO_TARGET_DIR", sources.join("target"))
        .args(["build", "--release", "--package", PROGRAM]);
    let built = dist::build_programs(&mut cargo)?;
    let program = built.first().context("the build made no program")?;
    fs::copy(program, into.join(PROGRAM))?;
    Ok(fs::remove_dir_all(sources)?)
}

fn git() -> Command {
    let mut command = Command::new("git");
    command.current_dir(process::workspace());
    command
}
