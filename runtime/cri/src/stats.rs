//! Use of resources by containers and pods, read from their cgroups on demand.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use berth_oci::cgroup::{Cgroup, Stats};
use berth_proto::cri;

use crate::container::model::ContainerRecord;
use crate::sandbox::model::SandboxRecord;
use crate::server::Server;
use crate::time;

/// Shortest interval a rate is computed over, in nanoseconds.
const RATE_INTERVAL: i64 = 100_000_000;

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: i64,
    used: u64,
    rate: Option<u64>,
}

/// The last CPU reading of each cgroup, for rates.
#[derive(Default)]
pub struct CpuSamples(Mutex<HashMap<String, Sample>>);

impl CpuSamples {
    /// The use of `key` in nanoseconds of CPU per second since the reading before; None
    /// at the first.
    fn rate(&self, key: &str, at: i64, used: u64) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = samples.get(key).copied() else {
            samples.insert(
                key.to_owned(),
                Sample {
                    at,
                    used,
                    rate: None,
                },
            );
            return None;
        };
        let elapsed = at - last.at;
        if elapsed < RATE_INTERVAL {
            return last.rate;
        }
        let spent = u128::from(used.saturating_sub(last.used));
        let rate = u64::try_from(spent * 1_000_000_000 / elapsed as u128).ok();
        samples.insert(key.to_owned(), Sample { at, used, rate });
        rate
    }

    /// Forgets the readings of `key`.
    pub fn forget(&self, key: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The use of one container.
pub async fn of_container(server: &Server, record: &ContainerRecord) -> cri::ContainerStats {
    let at = time::now();
    let path = server.cgroups.mount.join(&record.cgroup);
    let used = read(&path).unwrap_or_default();
    let layer = server.images.snapshot_usage(record.id.as_str()).await;
    cri::ContainerStats {
        attributes: Some(record.to_attributes()),
        cpu: Some(cpu(server, record.id.as_str(), at, &used)),
        memory: Some(memory(at, &used)),
        writable_layer: layer.ok().map(|layer| cri::FilesystemUsage {
            timestamp: at,
            fs_id: Some(cri::FilesystemIdentifier {
                mountpoint: server.config.images.root.display().to_string(),
            }),
            used_bytes: value(Some(layer.bytes)),
            inodes_used: value(Some(layer.inodes)),
        }),
        swap: used.swap_current.map(|swap| cri::SwapUsage {
            timestamp: at,
            swap_available_bytes: None,
            swap_usage_bytes: value(Some(swap)),
        }),
        io: None,
    }
}

/// The use of one pod: its whole cgroup where it has one of its own.
pub async fn of_sandbox(server: &Server, record: &SandboxRecord) -> cri::PodSandboxStats {
    let at = time::now();
    let used = read(&server.cgroups.mount.join(&record.cgroup.path)).unwrap_or_default();
    let mut containers = Vec::new();
    for container in server.containers.of(&record.id) {
        if container.pid().is_some() {
            containers.push(of_container(server, &container).await);
        }
    }
    cri::PodSandboxStats {
        attributes: Some(record.to_attributes()),
        linux: Some(cri::LinuxPodSandboxStats {
            cpu: Some(cpu(server, record.id.as_str(), at, &used)),
            memory: Some(memory(at, &used)),
            network: network(record, at),
            process: Some(cri::ProcessUsage {
                timestamp: at,
                process_count: value(used.pids_current),
            }),
            containers,
            io: None,
        }),
        windows: None,
    }
}

fn value(value: Option<u64>) -> Option<cri::UInt64Value> {
    value.map(|value| cri::UInt64Value { value })
}

fn cpu(server: &Server, key: &str, at: i64, used: &Stats) -> cri::CpuUsage {
    let nanoseconds = used.cpu_usage_usec.map(|microseconds| microseconds * 1000);
    let rate = nanoseconds.and_then(|used| server.cpu_samples.rate(key, at, used));
    cri::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(nanoseconds),
        usage_nano_cores: value(rate),
        psi: None,
    }
}

fn memory(at: i64, used: &Stats) -> cri::MemoryUsage {
    let available = used.memory_max.zip(used.memory_working_set);
    cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(used.memory_working_set),
        available_bytes: value(available.map(|(max, set)| max.saturating_sub(set))),
        usage_bytes: value(used.memory_current),
        rss_bytes: value(used.memory_rss),
        page_faults: value(used.page_faults),
        major_page_faults: value(used.major_page_faults),
        psi: None,
    }
}

/// What the cgroup says; where it has no memory or pids controller, its processes are
/// asked instead.
fn read(path: &Path) -> Option<Stats> {
    let group = Cgroup::open(path).ok()?;
    let mut stats = group.stats();
    if stats.memory_current.is_none() || stats.pids_current.is_none() {
        let processes = processes_below(path);
        let resident: u64 = processes
            .iter()
            .filter_map(|pid| resident_bytes(*pid))
            .sum();
        stats.pids_current = stats.pids_current.or(Some(processes.len() as u64));
        stats.memory_current = stats.memory_current.or(Some(resident));
        stats.memory_working_set = stats.memory_working_set.or(Some(resident));
        stats.memory_rss = stats.memory_rss.or(Some(resident));
    }
    Some(stats)
}

fn processes_below(path: &Path) -> Vec<i32> {
    let mut processes = Cgroup::open(path)
        .and_then(|group| group.processes())
        .unwrap_or_default();
    for entry in crate::record::list(path).unwrap_or_default() {
        if entry.is_dir() {
            processes.extend(processes_below(&entry));
        }
    }
    processes
}

/// Resident memory of a process (`/proc/<pid>/statm`, second field, in pages).
fn resident_bytes(pid: i32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The pod's interfaces, from `/proc/<pause>/net/dev`. A pod on the host's network has none.
fn network(record: &SandboxRecord, at: i64) -> Option<cri::NetworkUsage> {
    if record.host_network() || record.pause_pid == 0 {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", record.pause_pid)).ok()?;
    let mut interfaces = parse_net_dev(&text);
    interfaces.retain(|interface| interface.name != "lo");
    let main = record
        .attached
        .as_ref()
        .map(|attached| attached.attachment.ifname.clone());
    let position = interfaces
        .iter()
        .position(|interface| Some(&interface.name) == main.as_ref());
    let default_interface = position.map(|position| interfaces.remove(position));
    Some(cri::NetworkUsage {
        timestamp: at,
        default_interface,
        interfaces,
    })
}

fn parse_net_dev(text: &str) -> Vec<cri::NetworkInterfaceUsage> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, counters)| {
            let counters: Vec<u64> = counters
                .split_whitespace()
                .filter_map(|field| field.parse().ok())
                .collect();
            let at = |index: usize| value(counters.get(index).copied());
            (counters.len() >= 16).then(|| cri::NetworkInterfaceUsage {
                name: name.trim().to_owned(),
                rx_bytes: at(0),
                rx_errors: at(2),
                tx_bytes: at(8),
                tx_errors: at(10),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_readings() {
        let samples = CpuSamples::default();
        assert_eq!(samples.rate("c", 0, 0), None);
        assert_eq!(
            samples.rate("c", 1_000_000_000, 500_000_000),
            Some(500_000_000)
        );
        assert_eq!(
            samples.rate("c", 1_000_000_001, 900_000_000),
            Some(500_000_000)
        );
        samples.forget("c");
        assert_eq!(samples.rate("c", 2_000_000_000, 0), None);
    }

    #[test]
    fn interfaces_are_read_from_the_kernels_table() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets errs\n  \
                    eth0: 10 1 2 0 0 0 0 0 30 3 4 0 0 0 0 0\n";
        let interfaces = parse_net_dev(text);
        assert_eq!(interfaces.len(), 1);
        assert_eq!(interfaces[0].name, "eth0");
        assert_eq!(interfaces[0].tx_bytes, value(Some(30)));
        assert_eq!(interfaces[0].tx_errors, value(Some(4)));
    }
}
