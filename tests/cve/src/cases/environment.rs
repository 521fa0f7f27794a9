//! What the caller of the runtime has, and no container and no hook may get.

use std::fs::{self, File};
use std::process::Command;

use anyhow::Result;
use berth_test_harness::Need;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use serde_json::json;

use crate::arena::Arena;
use crate::case::{Case, Findings, Verdict};
use crate::probe::Report;

pub(super) const CASES: &[Case] = &[Case {
    name: "environment-and-descriptors-of-the-caller",
    ids: &["host environment leak", "G1"],
    what: "a caller with a secret in its environment and an open folder: the container's first \
           process, further ones, and hooks have the environment of the spec and descriptors 0 to 2",
    needs: &[Need::Root],
    run: caller,
}];

const SECRET: &str = "BERTH_CVE_SECRET";

fn caller(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let leaked = File::open(arena.folder())?;
    fcntl_setfd(&leaked, fcntl_getfd(&leaked)? - FdFlags::CLOEXEC)?;
    let secret = |command: &mut Command| {
        command.env(SECRET, "of the caller");
    };
    let told = arena.folder().join("hooks");
    let mut bundle = arena.bundle("image", &["report"])?;
    let hook = json!({
        "path": arena.probe(), "args": ["probe", "report-to", &told], "env": ["OWN=1"],
    });
    bundle.spec["hooks"] = json!({
        "prestart": [&hook], "createRuntime": [&hook], "poststart": [&hook], "poststop": [&hook],
    });
    let container = bundle.container()?;
    let report = container
        .call_with(&["run", "ID"], secret)?
        .expect("run")?
        .report()?;
    judge(&mut findings, "the first process", &report, &["PATH=/bin"]);
    for line in fs::read_to_string(&told)?.lines() {
        let report: Report = serde_json::from_str(line)?;
        judge(&mut findings, "a hook", &report, &["OWN=1"]);
    }
    let mut bundle = arena.bundle("further", &["wait"])?;
    bundle.spec["process"]["env"] = json!(["OF=spec"]);
    let container = bundle.start()?;
    let line = ["exec", "ID", "/bin/probe", "report"];
    let report = container
        .call_with(&line, secret)?
        .expect("exec")?
        .report()?;
    judge(&mut findings, "a further process", &report, &["OF=spec"]);
    drop(leaked);
    Ok(findings.verdict())
}

fn judge(findings: &mut Findings, who: &str, report: &Report, environment: &[&str]) {
    findings.made();
    // HOME and TERM are what peers add, by the user and for a terminal
    let further: Vec<&String> = report
        .env
        .iter()
        .filter(|entry| !environment.contains(&entry.as_str()))
        .filter(|entry| !entry.starts_with("HOME="))
        .collect();
    findings.demand(further.is_empty(), || format!("{who} has {further:?}"));
    let open: Vec<String> = report
        .fds
        .iter()
        .filter(|(number, _)| **number > 2)
        .map(|(number, descriptor)| format!("{number} to {}", descriptor.to))
        .collect();
    findings.demand(open.is_empty(), || format!("{who} has descriptor {open:?}"));
}
