//! What each ring runs.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::binaries::{self, Binary};
use super::count::Count;
use super::former;
use super::in_vm::Session;
use crate::validation::Short;
use crate::{cve, dist, preflight, process, tidy};

/// Tests whose name holds this need root and a machine to change.
const ROOT: &str = "root_";
/// Packages with tests that need what only the VM has.
const VM_PACKAGES: [&str; 3] = ["berth-test-oci", "berth-test-cri", "berth-test-node"];
/// Those programs: limits, and what has to hold on the VM's kernel as well.
const VM_PROGRAMS: [&str; 8] = [
    "oci-limits",
    "cri-limits",
    "node-limits",
    "oci-userns",
    "oci-joins",
    "oci-rootless",
    "oci-record",
    "oci-crash",
];
/// After it nothing can be traced any more.
const VM_LAST: &str = "oci-untraced";
/// The tour of the VM ring.
const VM_TOUR: [&str; 2] = ["up", "--smoke"];

pub fn tidy() -> Result<Count> {
    let (passed, failed) = tidy::checks();
    Ok(Count {
        passed,
        failed,
        skipped: 0,
    })
}

pub fn unit(filter: Option<&str>) -> Result<Count> {
    let mut total = Count::default();
    for binary in binaries::build(&[])? {
        let arguments: Vec<&str> = ["--skip", ROOT].into_iter().chain(filter).collect();
        total += binary.run(&arguments, false)?;
    }
    let documents =
        process::capture(dist::cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    let output = String::from_utf8_lossy(&documents.stdout).into_owned();
    let mut count = Count::of_libtest(&output).unwrap_or_default();
    if !documents.status.success() {
        println!("{output}{}", String::from_utf8_lossy(&documents.stderr));
        count.failed = count.failed.max(1);
    }
    total += count;
    Ok(total)
}

pub fn root(filter: Option<&str>, previous_monitor: Option<&Path>) -> Result<Count> {
    preflight::ensure(&preflight::NODE)?;
    dist::build()?;
    let former = former::monitor(previous_monitor)?;
    let mut total = Count::default();
    for mut binary in root_binaries(&[])? {
        let former = former.clone();
        binary.variable = former.map(|path| (former::VARIABLE, path));
        total += binary.run(&root_arguments(filter), false)?;
    }
    Ok(total)
}

/// The known attacks in their short form, against our own runtime; then those that no runtime at hand
/// lets through, each against ours with a defence left out.
pub fn cve(filter: Option<&str>) -> Result<Count> {
    let mut total = Count::default();
    for mut command in [cve::suite(&[cve::ours()?])?, cve::proofs()?] {
        if let Some(text) = filter {
            command.args(["--only", text]);
        }
        let output = process::capture(command.stderr(Stdio::inherit()))?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{output}");
        total += Count::of_last_line(&output).context("the suite ended without its last line")?;
    }
    Ok(total)
}

pub fn smoke() -> Result<Count> {
    preflight::ensure(&preflight::NODE)?;
    let program = std::env::current_exe()?;
    let mut command = std::process::Command::new(program);
    let output = command
        .args(["up", "--smoke"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run the tour")?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{output}");
    Count::of_smoke(&output).context("the tour ended without its last line")
}

/// The tests first, then the tour, in one VM.
pub fn vm(filter: Option<&str>, prebuilt: Option<&Path>) -> Result<Count> {
    let programs = match prebuilt {
        Some(folder) => folder.canonicalize()?,
        None => dist::build()?,
    };
    let (last, mut binaries): (Vec<_>, Vec<_>) = root_binaries(&VM_PACKAGES)?
        .into_iter()
        .partition(|binary| binary.label() == VM_LAST);
    binaries.retain(|binary| VM_PROGRAMS.contains(&binary.label().as_str()));
    let faulty = cve::faulty()?;
    let mut lacking = Count::default();
    let validation = match filter.is_none().then(Short::prepare) {
        Some(Ok(short)) => Some(short),
        Some(Err(error)) if require_all() => return Err(error),
        Some(Err(error)) => {
            lacking = Short::lacking(&error);
            None
        }
        None => None,
    };
    let session = Session {
        programs: &programs,
        binaries: &binaries,
        last: &last,
        faulty: &faulty,
        filter: filter.unwrap_or(ROOT),
        tour: if filter.is_some() { &[] } else { &VM_TOUR },
        validation: validation.as_ref(),
    };
    let mut total = session.run()?;
    total += lacking;
    Ok(total)
}

/// Whether nothing may be skipped.
fn require_all() -> bool {
    std::env::var("BERTH_REQUIRE_ALL").is_ok_and(|value| value == "1")
}

fn root_binaries(packages: &[&str]) -> Result<Vec<Binary>> {
    Ok(binaries::build(packages)?
        .into_iter()
        .filter(|binary| binary.has(ROOT))
        .collect())
}

/// One at a time: they change the machine.
fn root_arguments(filter: Option<&str>) -> Vec<&str> {
    vec![filter.unwrap_or(ROOT), "--test-threads=1"]
}
