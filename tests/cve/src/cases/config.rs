//! What engines pass on from images and pods: configurations, ids, annotations.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use berth_test_harness::Need;
use serde_json::{Value, json};

use crate::arena::Arena;
use crate::bundle::Bundle;
use crate::case::{Case, Findings, Verdict};
use crate::watch::Watch;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "configuration-that-overflows",
        ids: &["CVE-2021-43784", "G7"],
        what: "strings and lists beyond 64 KiB, nesting without end, a truncated file: refused, or \
               a container with the namespaces and capabilities asked for; no crash",
        needs: &[Need::Root],
        run: overflow,
    },
    Case {
        name: "id-that-is-a-path",
        ids: &["G6"],
        what: "ids with `..`, `/`, a line end, 5000 letters, none: refused, nothing is made beside \
               the state folder",
        needs: &[Need::Root],
        run: ids,
    },
    Case {
        name: "annotations-that-command",
        ids: &["CVE-2025-24965", "CVE-2024-3154", "G6"],
        what: "annotations that some runtime obeys (files for the output of hooks, handlers, \
               properties of units), and a handler's file of the image that leads to the host: \
               none touches the host",
        needs: &[Need::Root],
        run: annotations,
    },
    Case {
        name: "restore-of-an-image",
        ids: &["CVE-2026-119101", "CVE-2026-115520", "CVE-2026-119614"],
        what: "checkpoint and restore are refused",
        needs: &[Need::Root],
        run: restore,
    },
    Case {
        name: "name-service-of-the-image",
        ids: &["CVE-2019-14271", "CVE-2018-15664"],
        what: "libraries, preload list and name service configuration of the image: the runtime \
               opens none of them, neither for create nor for exec of another user",
        needs: &[Need::Root],
        run: name_service,
    },
];

/// Died of a memory fault, an abort, or for want of memory; or hangs.
const CRASHES: [i32; 6] = [134, 135, 136, 137, 139, -1];

fn overflow(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let long = "a".repeat(70_000);
    let many: Vec<Value> = (0..5000)
        .map(|i| json!({"containerID": i, "hostID": i, "size": 1}))
        .collect();
    type Change<'c> = Box<dyn Fn(&mut Value) + 'c>;
    let changes: Vec<Change<'_>> = vec![
        Box::new(|spec| spec["linux"]["namespaces"][1]["path"] = json!(format!("/{long}"))),
        Box::new(|spec| spec["process"]["env"] = json!([format!("A={long}")])),
        Box::new(|spec| spec["hostname"] = json!(long)),
        Box::new(|spec| spec["process"]["cwd"] = json!(format!("/{long}"))),
        Box::new(|spec| spec["linux"]["uidMappings"] = json!(many)),
        Box::new(|spec| spec["linux"]["gidMappings"] = json!(many)),
        Box::new(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{long}"))),
        Box::new(|spec| spec["annotations"] = json!({ &long: &long })),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut bundle = arena.bundle(&format!("image-{number}"), &["report"])?;
        change(&mut bundle.spec);
        bundle_holds(&mut findings, &bundle)?;
    }
    let plain = arena.bundle("text", &["report"])?;
    let whole = plain.spec.to_string();
    let deep = format!("{{\"annotations\":{}", "{\"a\":".repeat(200_000));
    for text in [&whole[..whole.len() / 2], "", "[]", "\u{0}", &deep] {
        let container = plain.container()?;
        fs::write(plain.folder().join("config.json"), text)?;
        let output = container.run()?;
        findings.demand(!output.ok(), || "half a configuration is enough".into());
        findings.demand(!CRASHES.contains(&output.code), || {
            format!("it ended with {} on {:.20?}", output.code, text)
        });
        findings.refused();
    }
    Ok(findings.verdict())
}

fn bundle_holds(findings: &mut Findings, bundle: &Bundle<'_>) -> Result<()> {
    let output = bundle.run()?;
    if !output.ok() {
        findings.refused();
        findings.demand(!CRASHES.contains(&output.code), || {
            format!("it ended with {}: {:.200}", output.code, output.stderr)
        });
        return Ok(());
    }
    findings.made();
    let report = output.report()?;
    for (kind, own) in &report.namespaces {
        // of this thread: the suite is in namespaces of its own
        let host = fs::read_link(format!("/proc/thread-self/ns/{kind}"))?;
        let asked = ["pid", "net", "ipc", "uts", "mnt", "cgroup"].contains(&kind.as_str());
        findings.demand(!asked || host.display().to_string() != *own, || {
            format!("the {kind} namespace is the host's")
        });
    }
    let bounding = report.status.get("CapBnd").map(String::as_str);
    findings.demand(bounding == Some("00000000a80425fb"), || {
        format!("the bounding set is {bounding:?}")
    });
    Ok(())
}

fn ids(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let beside = arena.decoy("beside")?;
    let long = "a".repeat(5000);
    let bundle = arena.bundle("image", &["exit", "0"])?;
    let container = bundle.container()?;
    let ids = [
        "..",
        ".",
        "",
        "../beside/x",
        "a/b",
        "/abs",
        "a\nb",
        "a b",
        &long,
    ];
    for id in ids {
        for verb in ["run", "create"] {
            let output = container.call(&[verb, "--", id])?;
            match output.ok() {
                true => findings.wrong(format!("`{verb}` takes the id {id:.20?}")),
                false => findings.refused(),
            }
        }
        let output = container.call(&["delete", "--force", "--", id])?;
        if !arena.program().exists() {
            findings.wrong(format!(
                "delete of {id:.20?} removed what lies beside the state folder"
            ));
            return Ok(findings.verdict());
        }
        findings.demand(!CRASHES.contains(&output.code), || {
            format!("delete of {id:.20?} ended with {}", output.code)
        });
    }
    for change in beside.changes()? {
        findings.wrong(change);
    }
    Ok(findings.verdict())
}

fn annotations(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let host = arena.decoy("host")?;
    let mut bundle = arena.bundle("image", &["report"])?;
    symlink(
        host.path().join("secret"),
        bundle.inside(".krun_config.json"),
    )?;
    let hook = json!({"path": arena.probe(), "args": ["probe", "exit", "0"]});
    bundle.spec["hooks"] = json!({"prestart": [hook]});
    let file = |name: &str| json!(host.path().join(name));
    let all = [
        ("run.oci.hooks.stdout", file("hooks.out")),
        ("run.oci.hooks.stderr", file("hooks.err")),
        ("run.oci.seccomp.receiver", file("receiver")),
        ("run.oci.handler", json!("krun")),
        ("run.oci.handler", json!("wasm")),
        ("org.systemd.property.ExecStartPre", json!("'/bin/true'")),
        ("io.kubernetes.cri-o.LogPath", file("log")),
        (
            "io.containerd.runc.v2.log",
            json!(format!("binary://{}", arena.probe().display())),
        ),
    ];
    for (name, value) in all {
        bundle.spec["annotations"] = json!({ name: value });
        match bundle.run()?.ok() {
            true => findings.made(),
            false => findings.refused(),
        }
        for change in host.changes()? {
            findings.wrong(format!("{name}: {change}"));
        }
    }
    Ok(findings.verdict())
}

fn restore(arena: &Arena) -> Result<Verdict> {
    if arena.runtime.name != "berth-oci" {
        return Ok(Verdict::Skipped(
            "what restores needs CRIU, which is not here".into(),
        ));
    }
    let mut findings = Findings::default();
    let bundle = arena.bundle("image", &["wait"])?;
    let container = bundle.start()?;
    for verb in ["checkpoint", "restore"] {
        let output = container.call(&[verb, "ID"])?;
        match output.ok() {
            true => findings.wrong(format!("`{verb}` is not refused")),
            false => findings.refused(),
        }
    }
    let report = container
        .exec(&[], &["report"])?
        .expect("exec after the refusal")?;
    report.report()?;
    findings.made();
    Ok(findings.verdict())
}

fn name_service(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let bundle = arena.bundle("image", &["wait"])?;
    let libraries = "lib/x86_64-linux-gnu";
    fs::create_dir_all(bundle.inside(libraries))?;
    fs::create_dir_all(bundle.inside("usr/lib/gconv"))?;
    fs::write(bundle.inside("etc/passwd"), "u:x:1000:1000::/:/bin/sh\n")?;
    let names = [
        "etc/ld.so.preload",
        "etc/ld.so.cache",
        "etc/nsswitch.conf",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libnss_compat.so.2",
        "lib/x86_64-linux-gnu/libc.so.6",
        "lib/x86_64-linux-gnu/libseccomp.so.2",
        "usr/lib/gconv/gconv-modules",
    ];
    let files: Vec<_> = names.iter().map(|name| bundle.inside(name)).collect();
    for file in &files {
        fs::write(file, "passwd: files\n/lib/evil.so\n")?;
    }
    let watch = Watch::opens(&files)?;
    let container = bundle.start()?;
    findings.made();
    for user in ["0", "1000"] {
        container
            .exec(&["--user", user], &["report"])?
            .expect("exec")?;
        findings.made();
    }
    for file in watch.opened() {
        findings.wrong(format!("`{}` was opened", file.display()));
    }
    Ok(findings.verdict())
}
