//! What each ring runs.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::binaries::{self, Binary};
use super::count::Count;
use crate::{dist, preflight, process, tidy, vm};

/// Tests whose name holds this need root and a machine to change.
const ROOT: &str = "root_";
const VM_LIMIT: Duration = Duration::from_mins(25);

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
    for binary in binaries::build()? {
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

pub fn root(filter: Option<&str>) -> Result<Count> {
    preflight::ensure(&preflight::NODE)?;
    dist::build()?;
    let mut total = Count::default();
    for binary in root_binaries()? {
        total += binary.run(&root_arguments(filter), false)?;
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

/// One session: root tests first, then the tour; each prints its own lines, the
/// counts come back through a file.
pub fn vm(filter: Option<&str>) -> Result<Count> {
    dist::build()?;
    let share = tempfile::tempdir()?;
    let mut script = String::from("export BERTH_REQUIRE_ALL=1\n");
    let arguments: Vec<String> = root_arguments(filter)
        .iter()
        .map(|a| vm::quote(a))
        .collect();
    for (number, binary) in root_binaries()?.iter().enumerate() {
        let program = vm::quote(&binary.path.display().to_string());
        let folder = vm::quote(&binary.folder.display().to_string());
        script.push_str(&format!(
            "cd {folder}; timeout 600 {program} {} --show-output >/mnt/rw/{number} 2>&1\n",
            arguments.join(" ")
        ));
    }
    script.push_str(&vm::tour_script(&["up", "--smoke"])?);
    script.push_str(" 2>&1 | tee /mnt/rw/smoke\n");
    let code = vm::execute(&script, Some(share.path()), VM_LIMIT)?;
    if code >= vm::TIMED_OUT {
        bail!("the VM did not finish");
    }
    let mut total = Count::default();
    for (number, binary) in root_binaries()?.iter().enumerate() {
        let output = std::fs::read(share.path().join(number.to_string())).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let failed = Count {
            failed: 1,
            ..Count::default()
        };
        let count = Count::of_libtest(&output).unwrap_or(failed);
        if count.failed > 0 {
            println!("{output}");
        }
        println!("  vm {}: {count}", binary.name);
        total += count;
    }
    let tour = std::fs::read_to_string(share.path().join("smoke")).unwrap_or_default();
    total += Count::of_smoke(&tour).context("the tour in the VM ended without its last line")?;
    Ok(total)
}

fn root_binaries() -> Result<Vec<Binary>> {
    Ok(binaries::build()?
        .into_iter()
        .filter(|binary| binary.has(ROOT))
        .collect())
}

/// One at a time: they change the machine.
fn root_arguments(filter: Option<&str>) -> Vec<&str> {
    vec![filter.unwrap_or(ROOT), "--test-threads=1"]
}
