//! The audit log: what the steps before did is in it, and the chain is whole.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::tour::{Tour, expect};
use super::{Step, step};
use crate::process;

pub const STEPS: &[Step] = &[
    step(
        "audit show has the pod's starts and executions, and who asked",
        shows,
    ),
    step(
        "audit verify says that the chain is whole, here and of an export",
        verifies,
    ),
];

fn shows(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    tour.shell(&pod, "true")?;
    let name = format!("default/{pod}");
    let lines = audit(tour, &["show", "--pod", &name, "-o", "json"])?;
    let entries: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let of = |kind: &str| entries.iter().filter(|entry| entry["kind"] == kind).count();
    ensure!(of("start") > 0 && of("exec") > 0, "{lines}");
    for entry in &entries {
        let who = entry["subject"]["who"].as_str().unwrap_or_default();
        ensure!(who.starts_with("uid 0, pid "), "{entry}");
    }
    let table = audit(tour, &["show", "--pod", &name, "--since", "1h"])?;
    expect(&table, "sh -c true")
}

fn verifies(tour: &mut Tour) -> Result<()> {
    expect(&audit(tour, &["verify"])?, "ok: ")?;
    let export = tour.file("export.jsonl");
    std::fs::write(&export, audit(tour, &["export"])?)?;
    let key = tour.data.join("cri/audit/node.pub");
    let (file, key) = (export.display().to_string(), key.display().to_string());
    expect(
        &audit(tour, &["verify", "--file", &file, "--key", &key])?,
        "ok: ",
    )
}

/// `berth audit` with the tour's configuration.
fn audit(tour: &Tour, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tour.programs.join("berth"));
    command
        .arg("--config")
        .arg(tour.file("config.toml"))
        .arg("audit")
        .args(arguments);
    process::output(&mut command)
}
