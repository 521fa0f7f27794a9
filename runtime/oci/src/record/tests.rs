//! The schema, its documents, and comparisons that need no process.

use std::collections::BTreeSet;

use serde_json::Value;

use super::compare::compare;
use super::observed::{Observed, Program, Status};
use super::own::Own;
use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/sandbox-record.md");
const SCHEMA: &str = include_str!("../../../../docs/sandbox-record.schema.json");
const GOLDEN: &str = include_str!("golden.json");

fn names() -> BTreeSet<String> {
    Fields::NAMES.iter().map(ToString::to_string).collect()
}

#[test]
fn the_document_and_the_schema_have_every_field() {
    let table = DOCUMENT.split("## Fields").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let first = rows.map(|row| row.split('|').nth(1).unwrap());
    let documented: BTreeSet<String> = first
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect();
    assert_eq!(documented, names());
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let fields = &schema["properties"]["fields"]["properties"];
    let published: BTreeSet<String> = fields.as_object().unwrap().keys().cloned().collect();
    assert_eq!(published, names());
}

/// A record as the present release writes it is read as it was meant, and written again the same.
#[test]
fn the_golden_record_is_kept() {
    let record: Record = serde_json::from_str(GOLDEN).unwrap();
    let value: Value = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), value);
    let fields = value["fields"].as_object().unwrap();
    assert_eq!(fields.keys().cloned().collect::<BTreeSet<_>>(), names());
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    for name in value.as_object().unwrap().keys() {
        assert!(!schema["properties"][name].is_null(), "{name}");
    }
}

#[test]
fn what_is_published_has_no_digest_of_the_environment() {
    let record: Record = serde_json::from_str(GOLDEN).unwrap();
    assert!(GOLDEN.contains("\"environment\": \"sha256:"));
    let text = serde_json::to_string(&record.publish()).unwrap();
    assert!(!text.contains("\"environment\":\"sha256:"), "{text}");
    assert!(text.contains("\"names\":[\"PATH\"]"), "{text}");
}

fn judged(requested: &Requested, observed: &Observed) -> Vec<String> {
    let own = Own {
        status: Status {
            permitted: u64::MAX,
            effective: u64::MAX,
            bounding: u64::MAX,
            ..Status::default()
        },
        ..Own::default()
    };
    let found = compare(requested, observed, &own, ReadAt::ExecStop);
    let all = found.mismatches.iter().chain(&found.degraded);
    all.map(|one| one.field.clone()).collect()
}

/// Requested and applied alike, as the golden record has them.
fn alike() -> (Requested, Observed) {
    let requested = Requested {
        uids: Some(Ids::all(1000)),
        no_new_privs: Some(false),
        capabilities: Some(Capabilities {
            bounding: 0b11,
            permitted: 0b11,
            ..Capabilities::default()
        }),
        ..Requested::default()
    };
    let observed = Observed {
        applied: Applied {
            uids: Some(Ids::all(1000)),
            no_new_privs: Some(false),
            capabilities: Some(Capabilities {
                bounding: 0b11,
                ..Capabilities::default()
            }),
            ..Applied::default()
        },
        same_cwd: true,
        ..Observed::default()
    };
    (requested, observed)
}

#[test]
fn execve_takes_capabilities_from_an_ordinary_user() {
    let (requested, mut observed) = alike();
    assert_eq!(judged(&requested, &observed), Vec::<String>::new());
    if let Some(sets) = &mut observed.applied.capabilities {
        sets.permitted = 0b1;
    }
    assert_eq!(judged(&requested, &observed), ["capabilities.permitted"]);
}

#[test]
fn a_set_user_id_program_has_its_owners_id_unless_that_is_forbidden() {
    let (mut requested, mut observed) = alike();
    observed.program = Some(Program {
        mode: 0o4755,
        ..Program::default()
    });
    observed.applied.uids = Some(Ids {
        real: 1000,
        ..Ids::all(0)
    });
    if let Some(sets) = &mut observed.applied.capabilities {
        (sets.permitted, sets.effective) = (0b11, 0b11);
    }
    assert_eq!(judged(&requested, &observed), Vec::<String>::new());
    requested.no_new_privs = Some(true);
    observed.applied.no_new_privs = Some(true);
    let found = judged(&requested, &observed);
    let expected = ["capabilities.effective", "capabilities.permitted", "uids"];
    assert_eq!(found, expected);
}

fn mount(target: &str, kind: &str, flags: &[&str]) -> Mount {
    Mount {
        target: target.into(),
        source: kind.into(),
        kind: kind.into(),
        flags: flags.iter().map(ToString::to_string).collect(),
        propagation: "private".into(),
        file: None,
    }
}

#[test]
fn every_mount_is_asked_for_and_as_asked() {
    let asked = vec![mount("/", "overlay", &["ro"]), mount("/proc", "proc", &[])];
    let row = |applied: Vec<Mount>, expected: &[&str]| {
        let (mut requested, mut observed) = alike();
        requested.mounts = Some(asked.clone());
        requested.masked_paths = Some([("/proc/kcore".to_owned(), "masked".to_owned())].into());
        observed.absent = vec!["/proc/kcore".into()];
        observed.applied.mounts = Some(applied);
        assert_eq!(judged(&requested, &observed), expected);
    };
    let root = || mount("/", "overlay", &["ro", "relatime"]);
    let proc = || mount("/proc", "proc", &["relatime"]);
    row(vec![root(), proc()], &[]);
    row(vec![root()], &["mounts./proc"]);
    row(
        vec![mount("/", "overlay", &["relatime"]), proc()],
        &["mounts./.flags"],
    );
    row(
        vec![root(), mount("/proc", "tmpfs", &[])],
        &["mounts./proc.type", "mounts./proc.source"],
    );
    row(
        vec![root(), proc(), mount("/x", "tmpfs", &[])],
        &["mounts./x"],
    );
    row(vec![root(), proc(), proc()], &["mounts./proc"]);
    row(
        vec![root(), proc(), mount("/proc/kcore", "tmpfs", &[])],
        &["masked_paths./proc/kcore"],
    );
}
