//! `update`: other limits for a container that exists.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use berth_oci::cgroup::Scope;
use berth_oci::spec::{self, MAX_SPEC_BYTES};
use berth_oci::state::{Status, Store};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Map, Value, json};

use super::record::Records;
use super::{Failure, cgroup, kept_spec};
use crate::cli::UpdateArgs;
use crate::log::Log;

pub(super) fn run(
    store: &Store,
    args: &UpdateArgs,
    records: &mut Records,
    log: &Log,
) -> Result<ExitCode, Failure> {
    let change = change(args)?;
    let _lock = store.lock(&args.id)?;
    let record = store.load(&args.id)?;
    let status = store.status(&record)?;
    if matches!(status, Status::Stopped | Status::Creating) {
        return Err(Failure::wrong_status("update", &args.id, status));
    }
    let mut spec = kept_spec(store, &args.id)?;
    let touched: BTreeSet<String> = change.keys().cloned().collect();
    let limits = merged(&spec, change)?;
    for limit in cgroup(&record)?.update(&limits, &touched)? {
        log.warn(&format!(
            "{} is not enforced: {}",
            limit.field, limit.reason
        ));
    }
    if let Some(unit) = &record.scope {
        Scope::update(unit, &limits)?;
    }
    records.update(store, &record, &limits)?;
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(Some(limits));
    }
    let text = serde_json::to_vec(&spec)
        .map_err(|e| Failure::Usage(format!("cannot keep the spec: {e}")))?;
    store.put(&args.id, "config.json", &text)?;
    Ok(ExitCode::SUCCESS)
}

/// What is to change, as a part of `linux.resources`.
fn change(args: &UpdateArgs) -> Result<Map<String, Value>, Failure> {
    for (flag, given) in [
        ("--l3-cache-schema", args.l3_cache_schema.is_some()),
        ("--mem-bw-schema", args.mem_bw_schema.is_some()),
    ] {
        if given {
            return Err(Failure::Unsupported {
                what: flag.to_owned(),
                reason: "the container is in no group of Intel RDT".to_owned(),
            });
        }
    }
    match args.resources.as_deref() {
        Some(path) => read(path),
        None => from_flags(args),
    }
}

/// The file of `--resources`, checked as strictly as a spec.
fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let mut bytes = Vec::new();
    let taken = if path == Path::new("-") {
        io::stdin().take(MAX_SPEC_BYTES + 1).read_to_end(&mut bytes)
    } else {
        let opened = File::open(path);
        opened.and_then(|file| file.take(MAX_SPEC_BYTES + 1).read_to_end(&mut bytes))
    };
    taken.map_err(Failure::io(format!("read `{}`", path.display())))?;
    if bytes.len() as u64 > MAX_SPEC_BYTES {
        let path = path.to_owned();
        return Err(spec::LoadError::TooLarge { path }.into());
    }
    spec::parse_resources(&bytes, path)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(without_nulls(fields)),
        _ => Err(Failure::Usage(format!(
            "`{}` holds no object",
            path.display()
        ))),
    }
}

fn without_nulls(fields: Map<String, Value>) -> Map<String, Value> {
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .collect()
}

fn from_flags(args: &UpdateArgs) -> Result<Map<String, Value>, Failure> {
    let list = |text: &Option<String>| text.clone().filter(|list| !list.is_empty());
    let groups = [
        (
            "cpu",
            json!({
                "shares": args.cpu_share, "quota": args.cpu_quota, "period": args.cpu_period,
                "burst": args.cpu_burst, "idle": args.cpu_idle,
                "realtimePeriod": args.cpu_rt_period, "realtimeRuntime": args.cpu_rt_runtime,
                "cpus": list(&args.cpuset_cpus), "mems": list(&args.cpuset_mems),
            }),
        ),
        (
            "memory",
            json!({
                "limit": size("--memory", &args.memory)?,
                "reservation": size("--memory-reservation", &args.memory_reservation)?,
                "swap": size("--memory-swap", &args.memory_swap)?,
            }),
        ),
        (
            "pids",
            json!({ "limit": args.pids_limit.filter(|limit| *limit != 0) }),
        ),
        ("blockIO", json!({ "weight": args.blkio_weight })),
    ];
    let mut change = Map::new();
    for (name, group) in groups {
        let Value::Object(fields) = group else {
            continue;
        };
        let fields = without_nulls(fields);
        if !fields.is_empty() {
            change.insert(name.to_owned(), fields.into());
        }
    }
    Ok(change)
}

/// The container's limits with the changed fields replaced; what is not named stays.
fn merged(spec: &Spec, change: Map<String, Value>) -> Result<LinuxResources, Failure> {
    let present = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().clone());
    let failed = |e: serde_json::Error| Failure::Usage(format!("these are no limits: {e}"));
    let mut all = match serde_json::to_value(present.unwrap_or_default()).map_err(failed)? {
        Value::Object(all) => all,
        _ => Map::new(),
    };
    for (name, value) in change {
        match (all.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(without_nulls(new)),
            (_, value) => drop(all.insert(name, value)),
        }
    }
    serde_json::from_value(all.into()).map_err(failed)
}

/// Bytes, with an optional unit of powers of 1024: `512`, `10m`, `1.5G`, `64KiB`; −1 for no limit.
fn size(flag: &str, text: &Option<String>) -> Result<Option<i64>, Failure> {
    let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = if text == "-1" { Some(-1) } else { bytes(text) };
    match parsed {
        Some(0) => Ok(None),
        Some(bytes) => Ok(Some(bytes)),
        None => Err(Failure::Usage(format!("{flag}: `{text}` is not a size"))),
    }
}

fn bytes(text: &str) -> Option<i64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let factor = 1_i64 << shift;
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let value = number.parse::<f64>().ok()? * factor as f64;
            (value.is_finite() && value < i64::MAX as f64).then_some(value as i64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, value) in [
            ("512", Some(512)),
            ("10m", Some(10 << 20)),
            ("1.5G", Some(3 << 29)),
            ("64KiB", Some(64 << 10)),
            ("2kb", Some(2048)),
            ("7b", Some(7)),
            ("-1", Some(-1)),
            ("0", None),
        ] {
            assert_eq!(
                size("--memory", &Some(text.into())).unwrap(),
                value,
                "{text}"
            );
        }
        for text in ["x", "1x", "-2", "1.2.3", "9999999999g", "m"] {
            assert!(size("--memory", &Some(text.into())).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let spec: Spec =
            serde_json::from_value(json!({"ociVersion": "1.0.2", "linux": {"resources": {
            "memory": {"limit": 10, "swap": 20}, "pids": {"limit": 5}, "cpu": {"shares": 7}}}}))
            .unwrap();
        let change = json!({"memory": {"limit": 15, "swap": null}, "cpu": {"quota": 9}});
        let Value::Object(change) = change else {
            panic!("an object")
        };
        let limits = serde_json::to_value(merged(&spec, change).unwrap()).unwrap();
        let expected = json!({"memory": {"limit": 15, "swap": 20}, "pids": {"limit": 5},
            "cpu": {"shares": 7, "quota": 9}});
        assert_eq!(limits, expected);
    }
}
