//! The release build: five programs gathered in `target/dist`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{preflight, process};

/// What the static programs are built for: with musl one starts in a third of the time
/// (docs/adr/0016).
const MUSL: &str = "x86_64-unknown-linux-musl";
/// What they are built for where musl's standard library cannot be had.
const GNU: &str = "x86_64-unknown-linux-gnu";
/// Package and program of the four that run inside or beside sandboxes.
const STATIC: [(&str, &str); 4] = [
    ("berth-oci", "berth-oci"),
    ("berth-monitor", "berth-monitor"),
    ("berth-pause", "berth-pause"),
    ("berth-cni-multicall", "berth-cni"),
];
/// Linked at a fixed address: pages of pointers that need no relocation stay in the file,
/// shared by all who run the program, and a start touches a third fewer (docs/adr/0012).
const STATIC_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// Builds everything and prints the folder.
pub fn run() -> Result<ExitCode> {
    println!("{}", build()?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the five programs and returns the folder that holds them.
pub fn build() -> Result<PathBuf> {
    preflight::ensure(&preflight::BUILD)?;
    let mut command = cargo();
    command.args(["build", "--release", "--package", "berth"]);
    let mut programs = build_programs(&mut command)?;
    programs.retain(|program| program.file_name().is_some_and(|name| name == "berth"));
    programs.extend(build_static(&STATIC, "static")?);
    let dist = target_folder()?.join("dist");
    fs::create_dir_all(&dist)?;
    for program in &programs {
        install(program, &dist)?;
    }
    for name in STATIC.iter().map(|(_, program)| *program).chain(["berth"]) {
        if !dist.join(name).is_file() {
            bail!("the build made no `{name}`");
        }
    }
    Ok(dist)
}

/// Builds programs, given as package and program, statically linked with cargo's `profile`.
pub fn build_static(programs: &[(&str, &str)], profile: &str) -> Result<Vec<PathBuf>> {
    let mut command = static_command(profile)?;
    for (package, program) in programs {
        command.args(["--package", package, "--bin", program]);
    }
    build_programs(&mut command)
}

/// A build of static programs, which the caller names.
pub fn static_command(profile: &str) -> Result<Command> {
    let target = static_target()?;
    let mut command = cargo();
    command.env("RUSTFLAGS", STATIC_FLAGS);
    command.args(["build", "--profile", profile, "--target", target]);
    Ok(command)
}

/// The target of static programs.
fn static_target() -> Result<&'static str> {
    static FOUND: OnceLock<&str> = OnceLock::new();
    match FOUND.get() {
        Some(target) => Ok(target),
        None => find_target().map(|target| *FOUND.get_or_init(|| target)),
    }
}

/// musl if its standard library is there, or can be fetched now.
fn find_target() -> Result<&'static str> {
    if has_standard_library(MUSL)? {
        return Ok(MUSL);
    }
    preflight::say(MUSL, "the C library of the static programs");
    let mut rustup = Command::new("rustup");
    rustup
        .current_dir(process::workspace())
        .env("RUSTUP_MAX_RETRIES", "0"); // without a network nobody waits long
    match process::output(rustup.args(["target", "add", MUSL])) {
        Ok(_) => Ok(MUSL),
        Err(error) => {
            eprintln!("xtask: {error:#}; the static programs get glibc, and start more slowly");
            Ok(GNU)
        }
    }
}

fn has_standard_library(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(process::workspace());
    let folder = process::output(rustc.args(["--print", "target-libdir", "--target", target]))?;
    Ok(Path::new(folder.trim()).is_dir())
}

/// Cargo's target folder for this workspace.
pub fn target_folder() -> Result<PathBuf> {
    let text = process::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let folder = metadata["target_directory"]
        .as_str()
        .context("cargo names no target folder")?;
    Ok(PathBuf::from(folder))
}

/// The cargo that runs this program, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(process::workspace());
    command
}

/// Runs a cargo build and returns the programs it names.
pub fn build_programs(command: &mut Command) -> Result<Vec<PathBuf>> {
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo build failed");
    }
    let programs = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            message["executable"].as_str().map(PathBuf::from)
        })
        .collect();
    Ok(programs)
}

/// Puts the program in place by rename: one that is running keeps its own file.
fn install(program: &Path, folder: &Path) -> Result<()> {
    let name = program.file_name().context("a program without a name")?;
    let staged = folder.join(format!(".{}", name.display()));
    fs::copy(program, &staged).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::rename(&staged, folder.join(name))?;
    Ok(())
}
