//! Fuzz targets: random input must be answered, never end in a panic. Driven by proptest, so they run
//! on the stable toolchain; `cargo xtask fuzz TARGET --seconds N` sets how long.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::lsm::Modules;
use crate::plan::{CgroupMode, Plan, RootfsSource, Source};
use crate::spec::config::{Spec, tests::same_tree};
use crate::spec::{MOUNT_OPTIONS, SpecErrors};

/// How long a target runs, in seconds; without it a few hundred cases.
const SECONDS: &str = "BERTH_FUZZ_SECONDS";

/// Runs `check` on random values.
pub(crate) fn run<S: Strategy>(strategy: &S, check: impl Fn(S::Value)) {
    let seconds = std::env::var(SECONDS).ok().and_then(|n| n.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        let config = Config {
            cases: 300,
            failure_persistence: None,
            ..Config::default()
        };
        let tried = TestRunner::new(config).run(strategy, |value| {
            check(value);
            Ok(())
        });
        if let Err(failure) = tried {
            panic!("{failure}");
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            return;
        }
    }
}

fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "env": ["A=1"], "cwd": "/",
            "capabilities": { "bounding": ["CAP_KILL"] }, "rlimits": [{ "type": "RLIMIT_CORE", "soft": 1, "hard": 2 }] },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/x", "source": "/y", "options": ["rbind", "rro"] }],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }], "cgroupsPath": "/a/b",
            "devices": [{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }],
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] } },
    })
}

fn plan(spec: &Spec) -> Result<Plan, SpecErrors> {
    let source = Source {
        id: "fuzz".into(),
        bundle: "/bundle".into(),
        rootfs: RootfsSource::Path("/bundle/rootfs".into()),
        cgroup: CgroupMode::Disabled,
    };
    let all = Modules {
        apparmor: true,
        selinux: true,
    };
    crate::spec::plan_for(spec, &source, all)
}

/// Cuts, doubles and exchanges pieces of a text.
fn mutated(text: String) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            "null",
            "-1",
            "4294967296",
            "[]",
            "{}",
            "\"\\u0000\"",
            ":",
            "\""
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
    ];
    let edit = (any::<prop::sample::Index>(), 0..12usize, piece);
    prop::collection::vec(edit, 0..5).prop_map(move |edits| {
        let mut bytes = text.clone().into_bytes();
        for (at, length, piece) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        bytes
    })
}

#[test]
fn fuzz_spec() {
    run(&mutated(base().to_string()), |bytes| {
        if let Ok(spec) = crate::spec::parse(&bytes, Path::new("config.json")) {
            let _ = plan(&spec);
        }
    });
}

#[test]
fn fuzz_json() {
    run(&mutated(base().to_string()), |bytes| same_tree(&bytes));
}

#[test]
fn fuzz_mount_options() {
    let word = prop_oneof![
        prop::sample::select(MOUNT_OPTIONS).prop_map(str::to_owned),
        "[a-z]{0,8}=?[\\PC,]{0,8}",
        "r[a-z]{2,12}",
    ];
    run(&prop::collection::vec(word, 0..10), |options| {
        for kind in ["tmpfs", "bind", "cgroup", "none"] {
            let mut spec = base();
            spec["mounts"][1] =
                json!({"destination": "/x", "type": kind, "source": "/y", "options": options});
            let spec: Spec = serde_json::from_value(spec).unwrap();
            let Ok(plan) = plan(&spec) else { continue };
            for change in plan.rootfs.mounts.iter().map(|mount| mount.attributes) {
                // Of two words that contradict each other one counts; access times are a field.
                assert_eq!(change.set & change.clear & !0x70, 0, "{options:?}");
            }
        }
    });
}

#[test]
fn fuzz_id_maps() {
    let edge = || prop_oneof![0..20u32, any::<u32>(), Just(u32::MAX), Just(u32::MAX - 1)];
    let lines = prop::collection::vec((edge(), edge(), edge()), 0..6);
    run(&lines, |lines| {
        let map: Vec<Value> = lines
            .iter()
            .map(|(inside, outside, size)| json!({"containerID": inside, "hostID": outside, "size": size}))
            .collect();
        let mut spec = base();
        spec["mounts"][1] = json!({"destination": "/x", "source": "/y", "options": ["bind"],
            "uidMappings": map, "gidMappings": map});
        let spec: Spec = serde_json::from_value(spec).unwrap();
        if plan(&spec).is_err() {
            return;
        }
        // Accepted: no id is mapped twice, on neither side.
        for (index, (inside, outside, size)) in lines.iter().enumerate() {
            assert!(*size > 0, "{lines:?}");
            for (other_inside, other_outside, other) in &lines[index + 1..] {
                let apart = |a: u32, b: u32| {
                    u64::from(a) + u64::from(*size) <= u64::from(b)
                        || u64::from(b) + u64::from(*other) <= u64::from(a)
                };
                assert!(apart(*inside, *other_inside), "{lines:?}");
                assert!(apart(*outside, *other_outside), "{lines:?}");
            }
        }
    });
}

#[test]
fn fuzz_state() {
    let record = json!({"oci_version": "1.2.0", "id": "c", "bundle": "/b", "rootfs": "/b/rootfs", "pid": 1,
        "start_time": 2, "created": "now", "cgroup": null, "annotations": {}});
    run(&mutated(record.to_string()), |bytes| {
        let _ = serde_json::from_slice::<crate::state::Record>(&bytes);
    });
}
