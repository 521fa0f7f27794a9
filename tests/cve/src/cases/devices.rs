//! Devices of the image, or of a neighbour, in the place of the kernel's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_test_harness::Need;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use crate::arena::Arena;
use crate::bundle::{Bundle, MASKED};
use crate::case::{Case, Findings, Verdict};
use crate::console::Console;
use crate::probe::Report;
use crate::racer::Racer;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "mask-by-a-link",
        ids: &["CVE-2025-31133", "CVE-2025-62161"],
        what: "`/dev/null` of the image is a link to `core_pattern`, and a neighbour exchanges it \
               for the device on a shared `/dev`: hidden files stay hidden, and nothing of procfs \
               is mounted elsewhere",
        needs: &[Need::Root],
        run: mask,
    },
    Case {
        name: "console-is-a-link",
        ids: &["CVE-2025-52565"],
        what: "with a terminal, `/dev/console` is a link to `core_pattern`, and a neighbour \
               exchanges it for a file on a shared `/dev`: refused, or it is the terminal",
        needs: &[Need::Root],
        run: console,
    },
];

/// A file that must not show anywhere but in its place.
const TARGET: &str = "/proc/sys/kernel/core_pattern";
/// Its path in procfs, as mountinfo tells it.
const TARGET_ROOT: &str = "/sys/kernel/core_pattern";

/// A `/dev` that a neighbour has too, with `name` and, beside it, a link.
fn shared_dev(arena: &Arena, name: &str) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let folder = arena.make(&format!("dev-{name}"))?;
    fs::create_dir(folder.join("pts"))?;
    let (own, link) = (folder.join(name), folder.join("link"));
    symlink(TARGET, &link)?;
    Ok((folder, own, link))
}

fn mask(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let mut image = arena.bundle("image", &["report"])?;
    image.without_mount("/dev").without_mount("/dev/pts");
    symlink(TARGET, image.inside("dev/null"))?;
    judge_masks(&mut findings, &image)?;
    let (folder, null, link) = shared_dev(arena, "null")?;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, &null, FileType::CharacterDevice, mode, makedev(1, 3))?;
    let mut pod = arena.bundle("pod", &["report"])?;
    pod.without_mount("/dev").without_mount("/dev/pts");
    pod.bind(&folder, "/dev");
    let racer = Racer::exchange(null, link, arena.seed);
    let raced = (0..arena.rounds).try_for_each(|_| judge_masks(&mut findings, &pod));
    racer.end();
    raced?;
    Ok(findings.verdict())
}

fn judge_masks(findings: &mut Findings, bundle: &Bundle<'_>) -> Result<()> {
    let output = bundle.run()?;
    if !output.ok() {
        findings.refused();
        return Ok(());
    }
    findings.made();
    let report = output.report()?;
    no_target(findings, &report);
    let points: Vec<&str> = points(&report).collect();
    for path in MASKED.iter().filter(|path| path.starts_with("/proc")) {
        let there = Path::new(path).exists();
        findings.demand(!there || points.contains(path), || {
            format!("`{path}` is not masked")
        });
    }
    Ok(())
}

fn no_target(findings: &mut Findings, report: &Report) {
    let mounted = report.mounted(TARGET_ROOT);
    findings.demand(mounted.is_empty(), || {
        format!("`{TARGET}` is mounted on {mounted:?}")
    });
}

fn points(report: &Report) -> impl Iterator<Item = &str> {
    report
        .mounts
        .iter()
        .filter_map(|line| line.split(' ').nth(4))
}

fn console(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let mut image = arena.bundle("image", &[])?;
    image.without_mount("/dev").without_mount("/dev/pts");
    symlink(TARGET, image.inside("dev/console"))?;
    judge_console(arena, &mut findings, &mut image)?;
    let (folder, file, link) = shared_dev(arena, "console")?;
    fs::write(&file, "")?;
    let mut pod = arena.bundle("pod", &[])?;
    // devpts comes after the volume that it lies in
    let devpts = json!({
        "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    });
    pod.without_mount("/dev").without_mount("/dev/pts");
    pod.bind(&folder, "/dev").mount(devpts);
    let racer = Racer::exchange(file, link, arena.seed);
    let rounds = 0..arena.rounds;
    let raced = rounds
        .into_iter()
        .try_for_each(|_| judge_console(arena, &mut findings, &mut pod));
    racer.end();
    raced?;
    Ok(findings.verdict())
}

/// Runs the bundle with a terminal.
fn judge_console(arena: &Arena, findings: &mut Findings, bundle: &mut Bundle<'_>) -> Result<()> {
    let told = bundle.inside("tmp/report");
    bundle.spec["process"]["terminal"] = json!(true);
    bundle.arguments(&["report-to", "/tmp/report"]);
    let console = Console::listen(arena.folder())?;
    let socket = console.path().display().to_string();
    let container = bundle.container()?;
    let line = ["run", "--detach", "--console-socket", &socket, "ID"];
    if !container.call(&line)?.ok() {
        findings.refused();
        return Ok(());
    }
    findings.made();
    let report = wait_for(&told)?;
    no_target(findings, &report);
    findings.demand(points(&report).all(|point| point != TARGET), || {
        format!("something is mounted on `{TARGET}`")
    });
    let terminal = report.session.2;
    findings.demand(terminal >> 8 == 136, || {
        format!(
            "the controlling terminal is device {}:{}",
            terminal >> 8,
            terminal & 0xff
        )
    });
    let of_console = |line: &&String| line.split(' ').nth(4) == Some("/dev/console");
    for mount in report.mounts.iter().filter(of_console) {
        findings.demand(mount.contains(" - devpts "), || {
            format!("`/dev/console` is {mount}")
        });
    }
    fs::remove_file(told)?;
    Ok(())
}

fn wait_for(file: &Path) -> Result<Report> {
    for _ in 0..1000 {
        if let Ok(text) = fs::read(file)
            && let Ok(report) = serde_json::from_slice(&text)
        {
            return Ok(report);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    None.context("the container writes no report")
}
