//! Limits: from the CRI's form to the OCI's.

use berth_proto::cri;
use serde_json::{Map, Value, json};

use super::HostInput;

/// The OCI form of `asked` with the rule for devices: all of them, or only those every
/// container has, which the runtime adds.
pub fn resources(
    asked: &cri::LinuxContainerResources,
    privileged: bool,
    host: &HostInput<'_>,
) -> Value {
    let mut resources = limits(asked, host.hugetlb);
    resources["devices"] = json!([{ "allow": privileged, "access": "rwm" }]);
    resources
}

/// The limits alone, as an update sets them. Zero means "not given" in the CRI.
pub fn limits(asked: &cri::LinuxContainerResources, hugetlb: bool) -> Value {
    let mut cpu = Map::new();
    put(&mut cpu, "shares", asked.cpu_shares);
    put(&mut cpu, "quota", asked.cpu_quota);
    put(&mut cpu, "period", asked.cpu_period);
    put_text(&mut cpu, "cpus", &asked.cpuset_cpus);
    put_text(&mut cpu, "mems", &asked.cpuset_mems);
    let mut memory = Map::new();
    put(&mut memory, "limit", asked.memory_limit_in_bytes);
    put(&mut memory, "swap", asked.memory_swap_limit_in_bytes);
    let mut resources = json!({});
    for (name, part) in [("cpu", cpu), ("memory", memory)] {
        if !part.is_empty() {
            resources[name] = Value::Object(part);
        }
    }
    // A kubelet sends a zero for every page size of the host, with or without controller.
    let pages = asked
        .hugepage_limits
        .iter()
        .filter(|limit| hugetlb || limit.limit > 0);
    let pages: Vec<Value> = pages
        .map(|page| json!({ "pageSize": page.page_size, "limit": page.limit }))
        .collect();
    if !pages.is_empty() {
        resources["hugepageLimits"] = json!(pages);
    }
    if !asked.unified.is_empty() {
        resources["unified"] = json!(asked.unified);
    }
    resources
}

fn put(into: &mut Map<String, Value>, key: &str, value: i64) {
    if value != 0 {
        into.insert(key.to_owned(), json!(value));
    }
}

fn put_text(into: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        into.insert(key.to_owned(), json!(value));
    }
}

/// `current` with what `update` sets in its place; zero and empty keep what is.
pub fn merge(
    current: &cri::LinuxContainerResources,
    update: &cri::LinuxContainerResources,
) -> cri::LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: &String, old: &String| {
        if new.is_empty() {
            old.clone()
        } else {
            new.clone()
        }
    };
    let mut unified = current.unified.clone();
    unified.extend(update.unified.clone());
    cri::LinuxContainerResources {
        cpu_period: number(update.cpu_period, current.cpu_period),
        cpu_quota: number(update.cpu_quota, current.cpu_quota),
        cpu_shares: number(update.cpu_shares, current.cpu_shares),
        memory_limit_in_bytes: number(update.memory_limit_in_bytes, current.memory_limit_in_bytes),
        oom_score_adj: number(update.oom_score_adj, current.oom_score_adj),
        cpuset_cpus: text(&update.cpuset_cpus, &current.cpuset_cpus),
        cpuset_mems: text(&update.cpuset_mems, &current.cpuset_mems),
        hugepage_limits: if update.hugepage_limits.is_empty() {
            current.hugepage_limits.clone()
        } else {
            update.hugepage_limits.clone()
        },
        unified,
        memory_swap_limit_in_bytes: number(
            update.memory_swap_limit_in_bytes,
            swap_beside(update.memory_limit_in_bytes, current),
        ),
    }
}

/// The limit of memory and swap together that leaves as much swap as there is, beside a new
/// limit of memory (0 for none).
fn swap_beside(memory: i64, current: &cri::LinuxContainerResources) -> i64 {
    let (old, both) = (
        current.memory_limit_in_bytes,
        current.memory_swap_limit_in_bytes,
    );
    if memory > 0 && old > 0 && both >= old {
        memory.saturating_add(both - old)
    } else {
        both
    }
}
