//! Images whose root file system leads somewhere else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use berth_test_harness::Need;
use serde_json::json;

use crate::arena::Arena;
use crate::bundle::{Bundle, MASKED};
use crate::case::{Case, Findings, Verdict};
use crate::decoy::Decoy;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "link-at-a-kernel-place",
        ids: &[
            "CVE-2019-19921",
            "CVE-2023-27561",
            "CVE-2023-28642",
            "CVE-2025-62161",
        ],
        what: "`/proc` or `/sys` of the image is a link, to a folder inside or to one of the host: \
               refused, or procfs is where it belongs and its hidden files are hidden",
        needs: &[Need::Root],
        run: kernel_links,
    },
    Case {
        name: "volume-over-procfs",
        ids: &["CVE-2019-16884", "CVE-2025-52881", "G3"],
        what: "a volume on `/proc` or below it, also by a link of the image: refused, or `/proc` \
               is still procfs",
        needs: &[Need::Root],
        run: volume_over_procfs,
    },
    Case {
        name: "dev-is-a-link",
        ids: &["CVE-2026-41579", "CVE-2026-47766", "CVE-2025-62596"],
        what: "`/dev` of the image is a link to a folder of the host, with and without a mount on \
               it: nothing is made there",
        needs: &[Need::Root],
        run: dev_link,
    },
];

fn kernel_links(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    for place in ["proc", "sys"] {
        for inner in [true, false] {
            let host = arena.decoy(&format!("host-{place}-{inner}"))?;
            let bundle = arena.bundle(&format!("{place}-{inner}"), &[])?;
            fs::create_dir(bundle.inside("elsewhere"))?;
            fs::remove_dir(bundle.inside(place))?;
            let target = if inner {
                Path::new("/elsewhere")
            } else {
                host.path()
            };
            symlink(target, bundle.inside(place))?;
            look(&mut findings, bundle, &host)?;
        }
    }
    Ok(findings.verdict())
}

fn volume_over_procfs(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let host = arena.decoy("host")?;
    let volume = arena.make("volume")?;
    for folder in [
        "self/attr",
        "sys/kernel",
        "sys/net/ipv4",
        "fs",
        "irq",
        "bus",
    ] {
        fs::create_dir_all(volume.join(folder))?;
    }
    for file in ["kcore", "keys", "self/attr/exec", "sys/kernel/core_pattern"] {
        fs::write(volume.join(file), "the volume's")?;
    }
    let places = [
        ("/proc", None),
        ("/proc/sys", None),
        ("/proc/self", None),
        ("/link", Some("/proc")),
        ("/link", Some("/proc/sys/kernel")),
        ("/link/kernel", Some("/proc/sys")),
        ("/link", Some("proc/self")),
    ];
    for (number, (place, link)) in places.into_iter().enumerate() {
        let mut bundle = arena.bundle(&format!("image-{number}"), &[])?;
        if let Some(target) = link {
            symlink(target, bundle.inside("link"))?;
        }
        bundle.bind(&volume, place);
        look(&mut findings, bundle, &host)?;
    }
    Ok(findings.verdict())
}

/// Runs the image; what is made must have the kernel's file systems in their places.
fn look(findings: &mut Findings, mut bundle: Bundle<'_>, host: &Decoy) -> Result<()> {
    const PROCFS: &str = "fs:9fa0";
    let places = [
        "/proc",
        "/proc/self/attr",
        "/proc/sys/kernel",
        "/proc/self/status",
    ];
    bundle.arguments(&[&["look"], &places[..]].concat());
    let output = bundle.run()?;
    if output.ok() {
        findings.made();
        let seen = output.json()?;
        for place in places {
            let kind = seen[place].as_str().unwrap_or_default();
            findings.demand(kind.contains(PROCFS), || {
                format!("`{place}` of `{}` is {kind}", bundle.folder().display())
            });
        }
        for hidden in MASKED.iter().filter(|path| path.starts_with("/proc")) {
            bundle.arguments(&["read", hidden]);
            let answer = bundle.run()?.expect("run")?.stdout;
            findings.demand(
                answer.starts_with("0 bytes") || answer.starts_with("errno"),
                || format!("`{hidden}` gives {answer}"),
            );
        }
    } else {
        findings.refused();
    }
    for change in host.changes()? {
        findings.wrong(change);
    }
    Ok(())
}

fn dev_link(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    for (number, mounted) in [false, true].into_iter().enumerate() {
        for (kind, inner) in [("inside", true), ("host", false)] {
            let host = arena.decoy(&format!("host-{number}-{kind}"))?;
            let mut bundle = arena.bundle(&format!("image-{number}-{kind}"), &["report"])?;
            fs::create_dir(bundle.inside("elsewhere"))?;
            fs::remove_dir(bundle.inside("dev"))?;
            let target = if inner {
                Path::new("/elsewhere")
            } else {
                host.path()
            };
            symlink(target, bundle.inside("dev"))?;
            if !mounted {
                bundle.without_mount("/dev").without_mount("/dev/pts");
            }
            bundle.spec["linux"]["devices"] = json!([
                {"path": "/dev/planted", "type": "c", "major": 1, "minor": 3},
            ]);
            match bundle.run()?.ok() {
                true => findings.made(),
                false => findings.refused(),
            }
            for change in host.changes()? {
                findings.wrong(change);
            }
        }
    }
    Ok(findings.verdict())
}
