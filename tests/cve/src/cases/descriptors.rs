//! Descriptors and directories of the host that the runtime lets out.

use std::os::unix::fs::symlink;

use anyhow::Result;
use berth_test_harness::Need;
use serde_json::json;

use crate::arena::Arena;
use crate::case::{Case, Findings, Verdict};
use crate::container::Output;

pub(super) const CASES: &[Case] = &[Case {
    name: "working-directory-is-a-descriptor",
    ids: &["CVE-2024-21626"],
    what: "working directory `/proc/self/fd/N`, of the image (also behind a link) and of exec, \
           N from 3 to 64: refused, or inside the root",
    needs: &[Need::Root],
    run: working_directory,
}];

fn working_directory(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let canary = arena.canary().display().to_string();
    let mut bundle = arena.bundle("image", &["report", &canary])?;
    let links = bundle.inside("work");
    for number in numbers(arena) {
        for base in ["/proc/self/fd", "/proc/thread-self/fd", "/proc/1/fd"] {
            bundle.spec["process"]["cwd"] = json!(format!("{base}/{number}"));
            judge(&mut findings, &bundle.run()?)?;
        }
        symlink(format!("/proc/self/fd/{number}"), &links)?;
        bundle.spec["process"]["cwd"] = json!("/work");
        judge(&mut findings, &bundle.run()?)?;
        std::fs::remove_file(&links)?;
    }
    let target = arena.bundle("target", &["wait"])?;
    let container = target.start()?;
    for number in numbers(arena) {
        let place = format!("/proc/self/fd/{number}");
        let output = container.exec(&["--cwd", &place], &["report", &canary])?;
        judge(&mut findings, &output)?;
    }
    Ok(findings.verdict())
}

/// All that a runtime may have open, or those that have leaked before.
fn numbers(arena: &Arena) -> Vec<u32> {
    if arena.long {
        (3..=64).collect()
    } else {
        (3..=12).collect()
    }
}

fn judge(findings: &mut Findings, output: &Output) -> Result<()> {
    if !output.ok() {
        findings.refused();
        return Ok(());
    }
    findings.made();
    let report = output.report()?;
    findings.demand(report.reached.is_empty(), || {
        format!("the canary can be read through {:?}", report.reached)
    });
    findings.demand(
        report.cwd.starts_with('/') && !report.cwd.contains("berth-cve-"),
        || format!("the working directory is `{}`", report.cwd),
    );
    Ok(())
}
