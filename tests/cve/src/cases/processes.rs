//! The runtime's own processes, as those of a container see them.

use std::fs;

use anyhow::{Context, Result};
use berth_test_harness::Need;

use crate::arena::Arena;
use crate::bundle::DEFAULT_CAPABILITIES;
use crate::case::{Case, Findings, Verdict};
use crate::probe::{CAUGHT, Catch, END};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "exec-is-watched",
        ids: &["CVE-2016-9962", "G1"],
        what: "root of the container looks into every process that exec brings: nothing of the \
               runtime's can be read or traced",
        needs: &[Need::Root],
        run: |arena| watched(arena, &[]),
    },
    Case {
        name: "exec-is-traced",
        ids: &["CVE-2016-9962", "G1"],
        what: "the same with CAP_SYS_PTRACE, which the kernel lets look: neither a directory nor a \
               descriptor leads to the host",
        needs: &[Need::Root],
        run: |arena| watched(arena, &["CAP_SYS_PTRACE"]),
    },
];

fn watched(arena: &Arena, further: &[&str]) -> Result<Verdict> {
    let mut findings = Findings::default();
    let canary = arena.canary().display().to_string();
    let mut bundle = arena.bundle("watcher", &["hunt", &canary])?;
    bundle.capabilities(&[&DEFAULT_CAPABILITIES, further].concat());
    let container = bundle.start()?;
    for _ in 0..arena.rounds {
        container.exec(&[], &["exit", "0"])?.expect("exec")?;
        findings.made();
    }
    fs::write(bundle.inside(END), "")?;
    for catch in caught(&bundle.inside(CAUGHT))? {
        findings.demand(catch.reached.is_empty(), || {
            format!(
                "the host can be read through {:?} of `{}`",
                catch.reached, catch.exe
            )
        });
        let leading: Vec<&String> = catch.fds.iter().filter(|to| leads_out(to)).collect();
        findings.demand(leading.is_empty(), || {
            format!("`{}` had {leading:?} open", catch.exe)
        });
        findings.demand(!further.is_empty(), || {
            format!("`{}` could be looked into: {catch:?}", catch.exe)
        });
    }
    Ok(findings.verdict())
}

/// Whether a descriptor leads to a file or folder of the host. The container's own streams are
/// files that nobody can name any more.
fn leads_out(target: &str) -> bool {
    let harmless = ["/dev/", "/proc", "/memfd:"];
    // the root of something detached; whether it leads anywhere is tried
    let named = target.len() > 1 && target.starts_with('/');
    named
        && !target.ends_with("(deleted)")
        && !harmless.iter().any(|prefix| target.starts_with(prefix))
}

fn caught(file: &std::path::Path) -> Result<Vec<Catch>> {
    for _ in 0..500 {
        if let Ok(text) = fs::read(file)
            && let Ok(all) = serde_json::from_slice(&text)
        {
            return Ok(all);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    None.context("the watcher tells nothing")
}
