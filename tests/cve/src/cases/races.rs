//! Neighbours that exchange names while a container is made.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use berth_test_harness::Need;
use serde_json::json;

use crate::arena::Arena;
use crate::bundle::Bundle;
use crate::case::{Case, Findings, Verdict};
use crate::racer::Racer;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "mount-target-exchanged",
        ids: &["CVE-2021-30465", "CVE-2024-45310", "CVE-2025-62596", "G2"],
        what: "a neighbour exchanges a folder of a shared volume for a link to a folder of the host \
           while mounts below it are made: the host's folder sees no change, and no mount is \
           made outside the root",
        needs: &[Need::Root],
        run: mount_target,
    },
    Case {
        name: "procfs-write-redirected",
        ids: &["CVE-2025-52881", "CVE-2025-62596", "G3"],
        what: "a neighbour exchanges a folder of a shared volume for a link into `/proc/sys` while a \
               volume is mounted there and kernel parameters are set: what is made has true \
               procfs with the value asked for, and the volume's files are not written",
        needs: &[Need::Root],
        run: procfs_write,
    },
];

fn mount_target(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let host = arena.decoy("host")?;
    let (volume, source) = (arena.make("volume")?, arena.make("source-of-a-mount")?);
    fs::create_dir(volume.join("a"))?;
    symlink(host.path(), volume.join("b"))?;
    let mut bundle = arena.bundle("pod", &["report"])?;
    bundle.bind(&volume, "/vol");
    bundle.bind(&source, "/vol/a/deep/down");
    let racer = Racer::exchange(volume.join("a"), volume.join("b"), arena.seed);
    let raced = race(arena, &bundle, &mut findings, "source-of-a-mount");
    racer.end();
    raced?;
    for change in host.changes()? {
        findings.wrong(change);
    }
    Ok(findings.verdict())
}

/// Makes the container again and again; each time the mount of `source` must be in it.
fn race(arena: &Arena, bundle: &Bundle<'_>, findings: &mut Findings, source: &str) -> Result<()> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    for _ in 0..arena.rounds {
        let output = bundle.run()?;
        if !output.ok() {
            findings.refused();
            continue;
        }
        findings.made();
        let report = output.report()?;
        let mounted = report.mounted(source);
        // what the container's own table shows lies inside its root
        findings.demand(mounted.len() == 1, || {
            format!("the container has its volume {} times", mounted.len())
        });
    }
    findings.demand(
        fs::read_to_string("/proc/thread-self/mountinfo")? == table,
        || "the host's mount table has changed".into(),
    );
    Ok(())
}

const PARAMETER: &str = "net.ipv4.ip_unprivileged_port_start";

fn procfs_write(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let volume = arena.make("volume")?;
    fs::create_dir(volume.join("a"))?;
    symlink("/proc/sys/net/ipv4", volume.join("b"))?;
    let fake = arena.decoy("fake")?;
    let file = PARAMETER.rsplit('.').next().unwrap_or_default();
    let path = format!("/proc/sys/net/ipv4/{file}");
    let mut bundle = arena.bundle("pod", &["print", &path])?;
    bundle.bind(&volume, "/vol");
    bundle.bind(fake.path(), "/vol/a");
    bundle.spec["linux"]["sysctl"] = json!({ PARAMETER: "77" });
    let racer = Racer::exchange(volume.join("a"), volume.join("b"), arena.seed);
    let raced = (0..arena.rounds).try_for_each(|_| {
        let output = bundle.run()?;
        // the probe fails where the file is not there
        if output.code == 1 || output.code > 98 {
            findings.refused();
            return anyhow::Ok(());
        }
        findings.made();
        let value = output.stdout.trim();
        findings.demand(value == "77", || format!("`{path}` holds {value:?}"));
        Ok(())
    });
    racer.end();
    raced?;
    for change in fake.changes()? {
        findings.wrong(change);
    }
    Ok(findings.verdict())
}
