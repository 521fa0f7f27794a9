//! `cargo xtask cve`: the known attacks on OCI runtimes, against ours or any other.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{dist, peers, preflight, process};

const PACKAGE: &str = "berth-test-cve";
const SUITE: &str = "berth-cve";
const PROBE: &str = "berth-cve-probe";
const OURS: &str = "berth-oci";

/// Flags of `cargo xtask cve`.
#[derive(clap::Args)]
pub struct Options {
    /// A program, or `berth`, `runc`, `crun` as `cargo xtask peers` has them; may be repeated
    #[arg(long, default_value = "berth")]
    runtime: Vec<String>,
    /// Races of 10 000 rounds and whole tables; takes minutes, with runc hours
    #[arg(long)]
    long: bool,
    /// Where the racers' random pauses start
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only cases whose name or identifier contains this
    #[arg(long)]
    only: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Also print the table of docs/security-model.md
    #[arg(long)]
    table: bool,
    /// Leave defences of berth-oci out, one at a time, and demand that a case fails each time
    #[arg(long, conflicts_with_all = ["runtime", "long", "json", "table"])]
    prove: bool,
}

/// Builds what is needed and runs the cases; the exit code tells whether all passed.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut command = match options.prove {
        true => proofs()?,
        false => {
            let programs = options.runtime.iter().map(|name| program(name));
            suite(&programs.collect::<Result<Vec<_>>>()?)?
        }
    };
    command.args(["--seed", &options.seed.to_string()]);
    if let Some(text) = &options.only {
        command.args(["--only", text]);
    }
    for (wanted, flag) in [
        (options.long, "--long"),
        (options.json, "--json"),
        (options.table, "--table"),
    ] {
        if wanted {
            command.arg(flag);
        }
    }
    let status = command.status().context("cannot run the suite")?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The suite against these runtimes, ready to run.
pub fn suite(runtimes: &[PathBuf]) -> Result<Command> {
    preflight::ensure(&preflight::BUILD)?;
    let mut build = dist::cargo();
    build.args(["build", "--package", PACKAGE, "--bin", SUITE]);
    let suite = named(&dist::build_programs(&mut build)?, SUITE)?;
    let probe = named(&dist::build_static(&[(PACKAGE, PROBE)], "dev")?, PROBE)?;
    let mut command = Command::new(suite);
    command
        .current_dir(process::workspace())
        .arg("--probe")
        .arg(probe);
    for runtime in runtimes {
        command.arg("--runtime").arg(runtime);
    }
    Ok(command)
}

/// The suite that demands of cases that they fail, ready to run.
pub fn proofs() -> Result<Command> {
    let mut command = suite(&[faulty()?])?;
    command.arg("--prove").arg("--dynamic").arg(dynamic()?);
    Ok(command)
}

/// Our own runtime, built as it ships.
pub fn ours() -> Result<PathBuf> {
    preflight::ensure(&preflight::BUILD)?;
    named(&dist::build_static(&[(OURS, OURS)], "static")?, OURS)
}

/// Our own runtime with its faults and crash points, which a shipped one has not.
pub fn faulty() -> Result<PathBuf> {
    preflight::ensure(&preflight::BUILD)?;
    let mut command = dist::static_command("dev")?;
    command.args(["--package", OURS, "--bin", OURS, "--features", "test-util"]);
    named(&dist::build_programs(&mut command)?, OURS)
}

/// The same with a loader, which attacks on libraries need.
fn dynamic() -> Result<PathBuf> {
    let mut command = dist::cargo();
    command.args(["build", "--package", OURS, "--bin", OURS]);
    command.args(["--features", "test-util"]);
    named(&dist::build_programs(&mut command)?, OURS)
}

fn program(name: &str) -> Result<PathBuf> {
    match name {
        "berth" => ours(),
        "runc" => Ok(peers::runc(&Cache::open()?)?.program("runc")),
        "crun" => Ok(peers::crun(&Cache::open()?)?.program("crun")),
        path => Path::new(path)
            .canonicalize()
            .with_context(|| format!("there is no runtime `{path}`")),
    }
}

fn named(programs: &[PathBuf], name: &str) -> Result<PathBuf> {
    let is_named = |program: &&PathBuf| program.file_name().is_some_and(|file| file == name);
    let found = programs.iter().find(is_named);
    found
        .cloned()
        .with_context(|| format!("the build made no `{name}`"))
}
