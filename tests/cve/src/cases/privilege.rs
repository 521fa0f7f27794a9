//! What of the kernel a container without privilege can reach.

use anyhow::Result;
use berth_test_harness::Need;
use serde_json::json;

use crate::arena::Arena;
use crate::bundle::{Bundle, MASKED};
use crate::case::{Case, Findings, Verdict};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "kernel-upcalls",
        ids: &["core_pattern, uevent_helper, binfmt_misc, modprobe"],
        what: "every file by which the kernel would run a program of the container on the host, \
               under every other name procfs has for it: none can be opened for writing",
        needs: &[Need::Root],
        run: upcalls,
    },
    Case {
        name: "hidden-paths",
        ids: &["CVE-2018-10892", "CVE-2020-8694", "procfs side channels"],
        what: "the paths that engines hide by default, also by other names: files are empty, \
               folders empty and not writable",
        needs: &[Need::Root],
        run: hidden,
    },
    Case {
        name: "cgroup-file-system-is-writable",
        ids: &["CVE-2023-25809", "CVE-2022-0492"],
        what: "cgroup file system asked for read-only, with a cgroup namespace and without: \
               read-only, and no release agent anywhere",
        needs: &[Need::Root, Need::CgroupV2],
        run: cgroups,
    },
    Case {
        name: "release-agent-by-a-user-namespace",
        ids: &["CVE-2022-0492"],
        what: "the container mounts a new hierarchy of cgroup v1, and as root of user, mount and \
               cgroup namespaces of its own each there is: no release agent can be written",
        needs: &[Need::Root],
        run: release_agent,
    },
];

/// Below each of these the whole of procfs and sysfs shows again.
const ALIASES: [&str; 6] = [
    "",
    "/proc/self/root",
    "/proc/1/root",
    "/proc/thread-self/root",
    "/proc/self/task/1/root",
    "/proc/1/cwd",
];

const UPCALLS: [&str; 9] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/release_agent",
    "/sys/kernel/mm/ksm/run",
];

fn upcalls(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let names: Vec<String> = aliases(&UPCALLS);
    let mut line = vec!["open-for-writing"];
    line.extend(names.iter().map(String::as_str));
    let output = arena.bundle("image", &line)?.run()?.expect("run")?;
    findings.made();
    let answers = output.json()?;
    for name in &names {
        findings.demand(answers[name] != json!("ok"), || {
            format!("`{name}` can be written")
        });
    }
    Ok(findings.verdict())
}

fn aliases(paths: &[&str]) -> Vec<String> {
    let each = |alias: &&str| {
        paths
            .iter()
            .map(|p| format!("{alias}{p}"))
            .collect::<Vec<_>>()
    };
    ALIASES.iter().flat_map(each).collect()
}

fn hidden(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let mut bundle = arena.bundle("image", &["wait"])?;
    bundle.capabilities(&crate::bundle::DEFAULT_CAPABILITIES);
    let container = bundle.start()?;
    findings.made();
    let names = aliases(&MASKED);
    let mut line = vec!["content"];
    line.extend(names.iter().map(String::as_str));
    let answers = container.exec(&[], &line)?.expect("exec")?.json()?;
    for name in &names {
        let answer = answers[name].as_str().unwrap_or_default();
        let nothing = ["0 bytes", "0 entries, errno", "errno"];
        findings.demand(
            nothing.iter().any(|start| answer.starts_with(start)),
            || format!("`{name}` has {answer}"),
        );
    }
    Ok(findings.verdict())
}

fn cgroups(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    for (name, own) in [("own", true), ("shared", false)] {
        let mut bundle = arena.bundle(name, &["report"])?;
        bundle.mount(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
        if !own {
            share_cgroups(&mut bundle);
        }
        let output = bundle.run()?;
        if !output.ok() {
            findings.refused();
            continue;
        }
        findings.made();
        for mount in &output.report()?.mounts {
            let fields: Vec<&str> = mount.split(' ').collect();
            let (place, options) = (fields[4], fields[5]);
            if place.starts_with("/sys/fs/cgroup") {
                let read_only = options.split(',').any(|option| option == "ro");
                findings.demand(read_only, || format!("`{place}` is `{options}` ({name})"));
            }
        }
        bundle.arguments(&[
            "open-for-writing",
            "/sys/fs/cgroup/cgroup.procs",
            "/sys/fs/cgroup/release_agent",
            "/sys/fs/cgroup/cgroup.subtree_control",
        ]);
        let answers = bundle.run()?.expect("run")?.json()?;
        for (path, answer) in answers.as_object().into_iter().flatten() {
            findings.demand(answer != "ok", || {
                format!("`{path}` can be written ({name})")
            });
        }
    }
    if findings.nothing_made() {
        findings.wrong("neither way is possible");
    }
    Ok(findings.verdict())
}

fn release_agent(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    for (name, own) in [("own", true), ("shared", false)] {
        let mut bundle = arena.bundle(name, &["release-agent"])?;
        if !own {
            share_cgroups(&mut bundle);
        }
        let answers = bundle.run()?.expect("run")?.json()?;
        findings.made();
        for (way, answer) in answers.as_object().into_iter().flatten() {
            findings.demand(answer != "ok", || {
                format!("{way}: a release agent is taken ({name})")
            });
        }
    }
    Ok(findings.verdict())
}

/// Leaves the container in the host's cgroup namespace.
fn share_cgroups(bundle: &mut Bundle<'_>) {
    if let Some(all) = bundle.spec["linux"]["namespaces"].as_array_mut() {
        all.retain(|namespace| namespace["type"] != "cgroup");
    }
}
