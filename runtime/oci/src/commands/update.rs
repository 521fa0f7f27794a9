//! `update`: other limits for a container that exists.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use berth_oci::cgroup::Scope;
use berth_oci::spec::config::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use berth_oci::spec::{self, MAX_SPEC_BYTES};
use berth_oci::state::{Status, Store};

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
    let linux = spec.linux.get_or_insert_default();
    let present = linux.resources.take().unwrap_or_default();
    let limits = present.changed(&change);
    let touched: BTreeSet<String> = change.members().collect();
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
    linux.resources = Some(limits);
    let text = serde_json::to_vec(&spec)
        .map_err(|e| Failure::Usage(format!("cannot keep the spec: {e}")))?;
    store.put(&args.id, "config.json", &text)?;
    Ok(ExitCode::SUCCESS)
}

/// What is to change, as a part of `linux.resources`.
fn change(args: &UpdateArgs) -> Result<LinuxResources, Failure> {
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
fn read(path: &Path) -> Result<LinuxResources, Failure> {
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
    Ok(spec::parse_resources(&bytes, path)?)
}

fn from_flags(args: &UpdateArgs) -> Result<LinuxResources, Failure> {
    let cpu = LinuxCpu {
        shares: args.cpu_share,
        quota: args.cpu_quota,
        burst: args.cpu_burst,
        period: args.cpu_period,
        realtime_runtime: args.cpu_rt_runtime,
        realtime_period: args.cpu_rt_period,
        cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        mems: args.cpuset_mems.clone().unwrap_or_default(),
        idle: args.cpu_idle,
    };
    let memory = LinuxMemory {
        limit: size("--memory", &args.memory)?,
        reservation: size("--memory-reservation", &args.memory_reservation)?,
        swap: size("--memory-swap", &args.memory_swap)?,
        ..LinuxMemory::default()
    };
    let pids = LinuxPids {
        limit: args.pids_limit.filter(|limit| *limit != 0),
    };
    let block_io = LinuxBlockIo {
        weight: args.blkio_weight,
        ..LinuxBlockIo::default()
    };
    Ok(LinuxResources {
        cpu: asked(cpu),
        memory: asked(memory),
        pids: asked(pids),
        block_io: asked(block_io),
        ..LinuxResources::default()
    })
}

fn asked<T: Default + PartialEq>(group: T) -> Option<T> {
    Some(group).filter(|group| *group != T::default())
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
        let parse =
            |text: &str| spec::parse_resources(text.as_bytes(), Path::new("limits.json")).unwrap();
        let present = parse(
            r#"{"memory": {"limit": 10, "swap": 20}, "pids": {"limit": 5}, "cpu": {"shares": 7}}"#,
        );
        let change = parse(r#"{"memory": {"limit": 15, "swap": null}, "cpu": {"quota": 9}}"#);
        let expected = parse(
            r#"{"memory": {"limit": 15, "swap": 20}, "pids": {"limit": 5},
                "cpu": {"shares": 7, "quota": 9}}"#,
        );
        assert_eq!(present.changed(&change), expected);
        assert!(change.members().eq(["memory", "cpu"]));
    }
}
