//! What the machine has: read from the kernel, never configured.

use std::path::Path;

use crate::config::Config;
use crate::eviction::threshold::Signal;

/// The machine's resources and what of them pods may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPUs online, in millicores.
    pub cpu_milli: i64,
    /// MemTotal, bytes.
    pub memory: i64,
    /// Size of the file system of `Config::root_dir`, bytes.
    pub ephemeral_storage: i64,
    /// Most pods.
    pub pods: i64,
    /// CPU for pods, millicores.
    pub allocatable_cpu_milli: i64,
    /// Memory for pods, bytes: total less the reserve and the hard eviction threshold.
    pub allocatable_memory: i64,
}

impl Capacity {
    /// Reads the machine's resources.
    #[must_use]
    pub fn read(config: &Config) -> Capacity {
        let cpu_milli = online_cpus() * 1000;
        let memory = meminfo("MemTotal:").unwrap_or_default();
        Capacity {
            cpu_milli,
            memory,
            ephemeral_storage: fs_size(&config.root_dir),
            pods: i64::from(config.max_pods),
            allocatable_cpu_milli: cpu_milli - config.reserved_cpu_milli,
            allocatable_memory: memory - config.reserved_memory - evicted_at(config, memory),
        }
    }
}

/// Hard eviction threshold of `memory.available`, bytes.
fn evicted_at(config: &Config, memory: i64) -> i64 {
    let capacity = u64::try_from(memory).unwrap_or_default();
    let mut hard = config.eviction.hard.iter();
    let least = hard.find(|t| t.signal == Signal::MemoryAvailable);
    let bytes = least.map_or(0, |threshold| threshold.least.of(capacity));
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A line of proc_meminfo(5), in bytes.
#[must_use]
pub fn meminfo(field: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    let kib: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn online_cpus() -> i64 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    count_ranges(text.trim()).max(1)
}

/// How many numbers a list such as `0-3,8` names.
fn count_ranges(list: &str) -> i64 {
    list.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<i64>().ok()? - first.parse::<i64>().ok()? + 1)
        })
        .sum()
}

fn fs_size(path: &Path) -> i64 {
    let nearest = path.ancestors().find(|p| p.exists());
    nearest
        .and_then(|p| rustix::fs::statvfs(p).ok())
        .and_then(|fs| i64::try_from(fs.f_blocks.saturating_mul(fs.f_frsize)).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        for (list, count) in [("0", 1), ("0-3", 4), ("0-1,4,6-7", 5), ("", 0)] {
            assert_eq!(count_ranges(list), count, "{list}");
        }
    }
}
