//! [`Usage`]: what a group uses, in the words of `runc events` (its `types/events.go`).
//!
//! What the host cannot tell is left out where that schema lets it, and 0 where it does not. The
//! fields of `cpuset` belong to cgroup v1 and stay 0; `intel_rdt` is empty, for no container is in a
//! group of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Cgroup;

/// Everything that `events` tells of a container.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Usage {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlockIo,
    hugetlb: BTreeMap<String, HugePages>,
    intel_rdt: BTreeMap<String, String>,
    network_interfaces: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// In nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    /// In nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct CpuSet {
    cpu_exclusive: u64,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

/// In bytes.
#[derive(Debug, Clone, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryEntry,
    /// Memory and swap together.
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct MemoryEntry {
    /// [`u64::MAX`] without one.
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    /// 0 without one.
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct HugePages {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    failcnt: u64,
}

/// Pressure stall information (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Pressure {
    some: Stall,
    full: Stall,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Stall {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    /// In microseconds.
    total: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Usage {
    /// What `group` uses now. A file that cannot be read counts as empty.
    pub fn read(group: &Cgroup) -> Usage {
        Usage::from_files(
            &|name| group.read(name).unwrap_or_default(),
            &group.huge_page_sizes(),
        )
    }

    fn from_files(text: &dyn Fn(&str) -> String, huge_pages: &[String]) -> Usage {
        let io = text("io.stat");
        let mut blkio = BlockIo {
            psi: pressure(&text("io.pressure")),
            ..BlockIo::default()
        };
        for line in io.lines() {
            let bytes = [
                ("Read", "rbytes"),
                ("Write", "wbytes"),
                ("Discard", "dbytes"),
            ];
            let calls = [("Read", "rios"), ("Write", "wios"), ("Discard", "dios")];
            blkio
                .io_service_bytes_recursive
                .extend(io_entries(line, bytes));
            blkio.io_serviced_recursive.extend(io_entries(line, calls));
        }
        Usage {
            cpu: cpu(text),
            memory: memory(text),
            pids: Pids {
                current: number(&text("pids.current")),
                limit: text("pids.max").trim().parse().unwrap_or(0),
            },
            blkio,
            hugetlb: huge_pages
                .iter()
                .map(|size| {
                    let failures = text(&format!("hugetlb.{size}.events"));
                    let pages = HugePages {
                        usage: number(&text(&format!("hugetlb.{size}.current"))),
                        failcnt: keyed(&failures, "max"),
                    };
                    (size.clone(), pages)
                })
                .collect(),
            ..Usage::default()
        }
    }
}

fn cpu(text: &dyn Fn(&str) -> String) -> Cpu {
    let stat = text("cpu.stat");
    let nanoseconds = |key| keyed(&stat, key).saturating_mul(1000);
    Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
        },
        throttling: Throttling {
            periods: keyed(&stat, "nr_periods"),
            throttled_periods: keyed(&stat, "nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: pressure(&text("cpu.pressure")),
    }
}

fn memory(text: &dyn Fn(&str) -> String) -> Memory {
    let stat = text("memory.stat");
    let events = text("memory.events");
    let raw: BTreeMap<String, u64> = stat
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect();
    let usage = MemoryEntry {
        limit: limit(&text("memory.max")),
        usage: number(&text("memory.current")),
        max: number(&text("memory.peak")),
        failcnt: keyed(&events, "max"),
    };
    let swap = MemoryEntry {
        limit: limit(&text("memory.swap.max")).saturating_add(usage.limit),
        usage: number(&text("memory.swap.current")).saturating_add(usage.usage),
        ..MemoryEntry::default()
    };
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        psi: pressure(&text("memory.pressure")),
        ..Memory::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 …` (cgroup-v2.rst, "io.stat").
fn io_entries(line: &str, operations: [(&'static str, &str); 3]) -> Vec<BlockIoEntry> {
    let mut words = line.split_whitespace();
    let device = words.next().and_then(|device| device.split_once(':'));
    let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else {
        return Vec::new();
    };
    let figures: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
    let entry = |(op, key): (&'static str, &str)| {
        let value = figures.get(key)?.parse().ok()?;
        Some(BlockIoEntry {
            major,
            minor,
            op,
            value,
        })
    };
    operations.into_iter().filter_map(entry).collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let mut all = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let stall = match words.next()? {
            "some" => &mut all.some,
            "full" => &mut all.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    (!text.is_empty()).then_some(all)
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// A limit; `max` is the largest number, a file that is not there 0.
fn limit(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

fn keyed(text: &str, key: &str) -> u64 {
    super::fs::keyed(text, key).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_become_the_fields_that_engines_read() {
        let text = |name: &str| {
            match name {
                "cpu.stat" => "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 9\n",
                "memory.max" => "max\n",
                "memory.current" => "4096\n",
                "memory.stat" => "anon 1\nfile 2\n",
                "memory.events" => "low 0\nmax 7\noom_kill 1\n",
                "memory.swap.max" => "max\n",
                "pids.current" => "3\n",
                "pids.max" => "max\n",
                "io.stat" => "8:0 rbytes=10 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
                "cpu.pressure" => "some avg10=1.50 avg60=0.00 avg300=0.00 total=8\n",
                "hugetlb.2MB.current" => "2097152\n",
                _ => "",
            }
            .to_owned()
        };
        let usage = Usage::from_files(&text, &["2MB".to_owned()]);
        let value = serde_json::to_value(usage).unwrap();
        assert_eq!(
            value["cpu"]["usage"],
            json!({"total": 5000, "kernel": 2000, "user": 3000})
        );
        assert_eq!(
            value["cpu"]["throttling"],
            json!({"periods": 1, "throttledPeriods": 1, "throttledTime": 9000})
        );
        assert_eq!(value["cpu"]["psi"]["some"]["avg10"], json!(1.5));
        assert_eq!(
            value["memory"]["usage"],
            json!({"limit": u64::MAX, "usage": 4096, "failcnt": 7})
        );
        assert_eq!(value["memory"]["swap"]["limit"], json!(u64::MAX));
        assert_eq!(value["memory"]["cache"], 2);
        assert_eq!(value["memory"]["raw"], json!({"anon": 1, "file": 2}));
        assert_eq!(value["pids"], json!({"current": 3}));
        let read = json!({"major": 8, "op": "Read", "value": 10});
        assert_eq!(value["blkio"]["ioServiceBytesRecursive"][0], read);
        assert_eq!(
            value["hugetlb"],
            json!({"2MB": {"usage": 2_097_152, "failcnt": 0}})
        );
        assert_eq!(value["intel_rdt"], json!({}));
    }
}
