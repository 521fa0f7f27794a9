//! `cargo xtask tidy`: what must hold of the source itself.

mod arrows;
mod licences;
mod links;
mod sources;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::{dist, process};

/// One check: its name, and what it found against the rule.
type Check = (&'static str, fn() -> Result<Vec<String>>);

const CHECKS: [Check; 6] = [
    ("format", format),
    ("dependency arrows", arrows::check),
    ("licences and sources", licences::check),
    ("source files", sources::check),
    ("documentation links", links::check),
    ("clippy", clippy),
];

/// Runs every check and prints what is wrong.
pub fn run() -> Result<ExitCode> {
    let (passed, failed) = checks();
    println!("tidy: {passed} checks passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs every check; how many passed, and how many failed.
pub fn checks() -> (usize, usize) {
    let mut failed = 0;
    for (name, check) in CHECKS {
        let findings = check().unwrap_or_else(|error| vec![format!("{error:#}")]);
        println!(
            "tidy: {name}: {}",
            if findings.is_empty() { "ok" } else { "FAILED" }
        );
        for finding in &findings {
            println!("  {finding}");
        }
        failed += usize::from(!findings.is_empty());
    }
    (CHECKS.len() - failed, failed)
}

fn format() -> Result<Vec<String>> {
    let output = process::capture(dist::cargo().args(["fmt", "--all", "--", "--check", "-l"]))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn clippy() -> Result<Vec<String>> {
    let mut command = dist::cargo();
    command.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    if !command.status()?.success() {
        bail!("see above");
    }
    Ok(Vec::new())
}
