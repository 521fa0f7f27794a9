//! What a process of a container starts with, from its own first instruction.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use berth_test_harness::Need;
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use crate::arena::Arena;
use crate::bundle::{Bundle, PROBE};
use crate::case::{Case, Findings, Verdict};
use crate::console::Console;
use crate::container::Container;
use crate::probe::Report;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "process-starts-with-nothing-of-the-host",
        ids: &["G1"],
        what: "created and executed, with and without a terminal, by a caller that blocks a \
               signal: descriptors, working directory, session and terminal, signal mask, \
               environment, program and mapped files are the container's own",
        needs: &[Need::Root],
        run: starts_clean,
    },
    Case {
        name: "session-keyring-of-its-own",
        ids: &["G1"],
        what: "a session keyring is made for the container",
        needs: &[Need::Root, Need::File("/proc/keys")],
        run: keyring,
    },
];

/// Containers that each have to get a keyring.
const KEYRINGS: usize = 8;
/// Where a process with a terminal writes its report.
const TOLD: &str = "/tmp/report";

fn starts_clean(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    // std leaves the mask of the calling thread to the programs it starts
    let blocked = SigSet::from(Signal::SIGUSR1);
    blocked.thread_block()?;
    let tried = each_way(arena, &mut findings);
    blocked.thread_unblock()?;
    tried?;
    Ok(findings.verdict())
}

fn each_way(arena: &Arena, findings: &mut Findings) -> Result<()> {
    let canary = arena.canary().display().to_string();
    let bundle = arena.bundle("created", &["report", &canary])?;
    let report = bundle.run()?.expect("run")?.report()?;
    judge(findings, "created", &report, false);

    let mut bundle = arena.bundle("terminal", &["report-to", TOLD])?;
    bundle.spec["process"]["terminal"] = json!(true);
    let console = Console::listen(arena.folder())?;
    let socket = console.path().display().to_string();
    let container = bundle.container()?;
    let line = ["run", "--detach", "--console-socket", &socket, "ID"];
    container.call(&line)?.expect("run with a terminal")?;
    judge(findings, "created with a terminal", &told(&bundle)?, true);
    drop(console);

    let bundle = arena.bundle("target", &["wait"])?;
    let container = bundle.start()?;
    let report = container.exec(&[], &["report", &canary])?;
    judge(
        findings,
        "executed",
        &report.expect("exec")?.report()?,
        false,
    );
    with_terminal(arena, &container)?;
    judge(findings, "executed with a terminal", &told(&bundle)?, true);
    Ok(())
}

fn with_terminal(arena: &Arena, container: &Container<'_>) -> Result<()> {
    let console = Console::listen(arena.folder())?;
    let socket = console.path().display().to_string();
    let flags = ["--tty", "--detach", "--console-socket", &socket];
    let output = container.exec(&flags, &["report-to", TOLD])?;
    output.expect("exec with a terminal")?;
    for _ in 0..500 {
        if container
            .exec(&[], &["read", TOLD])?
            .stdout
            .starts_with(|c| ('1'..='9').contains(&c))
        {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

fn told(bundle: &Bundle<'_>) -> Result<Report> {
    let file = bundle.inside(TOLD);
    for _ in 0..1000 {
        if let Ok(text) = fs::read(&file)
            && let Ok(report) = serde_json::from_slice(&text)
        {
            return Ok(report);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    None.context("the container writes no report")
}

fn judge(findings: &mut Findings, who: &str, report: &Report, terminal: bool) {
    findings.made();
    let mut demand =
        |holds: bool, what: String| findings.demand(holds, || format!("{who}: {what}"));
    let numbers: Vec<u32> = report.fds.keys().copied().collect();
    demand(
        numbers == [0, 1, 2],
        format!("descriptors {:?}", report.fds),
    );
    demand(
        report.cwd == "/",
        format!("working directory `{}`", report.cwd),
    );
    demand(report.exe == PROBE, format!("program `{}`", report.exe));
    let foreign: Vec<&String> = report.mapped.iter().filter(|file| *file != PROBE).collect();
    demand(foreign.is_empty(), format!("mapped {foreign:?}"));
    demand(
        report.reached.is_empty(),
        format!("the host is reached by {:?}", report.reached),
    );
    let mask = report.status.get("SigBlk").map(String::as_str);
    demand(
        mask == Some("0000000000000000"),
        format!("signal mask {mask:?}"),
    );
    // of its own session, or of none that is seen inside
    let (_, session, device) = report.session;
    demand(
        session == i64::from(report.pid) || session == 0,
        format!("session {session}"),
    );
    let own = if terminal {
        device >> 8 == 136
    } else {
        device == 0
    };
    demand(
        own,
        format!("controlling terminal {}:{}", device >> 8, device & 0xff),
    );
    let known = ["PATH=", "HOME=", "TERM="];
    let mut variables = report.env.iter();
    let further = variables.find(|entry| !known.iter().any(|name| entry.starts_with(name)));
    demand(further.is_none(), format!("environment {further:?}"));
    let groups: Vec<&String> = report
        .cgroup
        .iter()
        .filter(|line| !line.ends_with(":/"))
        .collect();
    demand(groups.is_empty(), format!("cgroups {groups:?}"));
}

fn keyring(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    // others make keyrings too, but not each time
    for number in 0..KEYRINGS {
        let bundle = arena.bundle(&format!("image-{number}"), &["wait"])?;
        let before = session_keyrings()?;
        let _container = bundle.start()?;
        findings.made();
        let after = session_keyrings()?;
        findings.demand(after.difference(&before).next().is_some(), || {
            "no keyring was made: it has the caller's".into()
        });
    }
    Ok(findings.verdict())
}

/// Serial numbers of all that root can see (keyrings(7), proc_keys(5)).
fn session_keyrings() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/keys")?;
    let lines = text.lines().filter(|line| line.contains("keyring"));
    let serial = |line: &str| Some(line.split_whitespace().next()?.to_owned());
    Ok(lines.filter_map(serial).collect())
}
