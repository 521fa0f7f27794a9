//! Limits of a spec → the files of cgroup v2 (cgroup-v2.rst), as data: what to write where.

use super::CgroupError;
use crate::spec::config::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources,
};

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The field of the spec, such as `memory.limit`, below `linux.resources`.
    pub(super) field: String,
    /// The controller that owns the file.
    pub(super) controller: &'static str,
    /// The file.
    pub(super) file: String,
    /// What to write.
    pub(super) value: String,
    /// File and value where the kernel does not have the first file.
    pub(super) otherwise: Option<(&'static str, String)>,
}

/// What `resources` asks for, in an order in which the kernel takes it.
pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    let (settings, mut problems) = plan(resources);
    if problems.is_empty() {
        return Ok(settings);
    }
    Err(problems.swap_remove(0))
}

/// Everything in `resources` that cgroup v2 cannot express, field and reason.
pub fn problems(resources: &LinuxResources) -> Vec<(String, String)> {
    let (_, mut problems) = plan(resources);
    problems.extend(super::devices::rules(&resources.devices).err());
    let words = problems.into_iter().map(|problem| match problem {
        CgroupError::BadValue { field, reason } => (field, reason),
        other => ("linux.resources".to_owned(), other.to_string()),
    });
    words.collect()
}

/// Collects settings, and what cannot be one.
#[derive(Debug, Default)]
struct Collector {
    settings: Vec<Setting>,
    problems: Vec<CgroupError>,
}

fn plan(resources: &LinuxResources) -> (Vec<Setting>, Vec<CgroupError>) {
    let mut out = Collector::default();
    if let Some(cpu) = &resources.cpu {
        cpu_settings(cpu, &mut out);
    }
    if let Some(memory) = &resources.memory {
        memory_settings(memory, &mut out);
    }
    let processes = resources.pids.as_ref().and_then(|pids| pids.limit);
    if let Some(limit) = processes.filter(|limit| *limit != 0) {
        out.push("pids.limit", "pids", "pids.max", max_or(limit));
    }
    if let Some(io) = &resources.block_io {
        io_settings(io, &mut out);
    }
    for limit in &resources.hugepage_limits {
        hugepage_setting(limit, &mut out);
    }
    if resources
        .network
        .as_ref()
        .is_some_and(|network| *network != Default::default())
    {
        out.refuse("network", "net_cls and net_prio do not exist in cgroup v2");
    }
    for (device, limit) in &resources.rdma {
        let handles = limit.hca_handles.map_or("max".into(), |n| n.to_string());
        let objects = limit.hca_objects.map_or("max".into(), |n| n.to_string());
        let name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if device.is_empty() || !device.chars().all(name) {
            out.refuse("rdma", &format!("`{device}` is not the name of a device"));
        }
        let value = format!("{device} hca_handle={handles} hca_object={objects}");
        out.push("rdma", "rdma", "rdma.max", value);
    }
    unified(resources, &mut out);
    (out.settings, out.problems)
}

impl Collector {
    fn push(
        &mut self,
        field: &str,
        controller: &'static str,
        file: &str,
        value: impl Into<String>,
    ) {
        self.settings.push(Setting {
            field: field.into(),
            controller,
            file: file.into(),
            value: value.into(),
            otherwise: None,
        });
    }

    fn refuse(&mut self, field: &str, reason: &str) {
        self.problems.push(CgroupError::BadValue {
            field: format!("linux.resources.{field}"),
            reason: reason.into(),
        });
    }
}

/// A limit where −1 (any negative number) means none.
fn max_or(limit: i64) -> String {
    if limit < 0 {
        "max".into()
    } else {
        limit.to_string()
    }
}

fn cpu_settings(cpu: &LinuxCpu, out: &mut Collector) {
    for (field, given) in [
        (
            "cpu.realtimeRuntime",
            cpu.realtime_runtime.is_some_and(|n| n != 0),
        ),
        (
            "cpu.realtimePeriod",
            cpu.realtime_period.is_some_and(|n| n != 0),
        ),
    ] {
        if given {
            out.refuse(field, "cgroup v2 has no realtime limits");
        }
    }
    let idle = cpu.idle;
    match idle {
        None | Some(0 | 1) => {}
        Some(other) => out.refuse("cpu.idle", &format!("{other} is neither 0 nor 1")),
    }
    if let Some(idle) = idle {
        out.push("cpu.idle", "cpu", "cpu.idle", idle.to_string());
    }
    // An idle group has the kernel's smallest weight, and takes no other (sched_group_set_shares).
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && idle != Some(1)) {
        let weight = weight(shares).to_string();
        out.push("cpu.shares", "cpu", "cpu.weight", weight);
    }
    // A burst may not be above the quota: whichever order the kernel refuses is tried again later.
    if let Some(burst) = cpu.burst {
        out.push("cpu.burst", "cpu", "cpu.max.burst", burst.to_string());
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    if quota != 0 || period != 0 {
        let quota = if quota > 0 {
            quota.to_string()
        } else {
            "max".into()
        };
        let value = if period == 0 {
            quota
        } else {
            format!("{quota} {period}")
        };
        out.push("cpu.quota", "cpu", "cpu.max", value);
    }
    cpuset_settings(cpu, out);
}

fn cpuset_settings(cpu: &LinuxCpu, out: &mut Collector) {
    for (field, file, list) in [
        ("cpu.cpus", "cpuset.cpus", &cpu.cpus),
        ("cpu.mems", "cpuset.mems", &cpu.mems),
    ] {
        if list.is_empty() {
            continue;
        }
        if !list
            .chars()
            .all(|c| c.is_ascii_digit() || ",-: \n".contains(c))
        {
            out.refuse(field, &format!("`{list}` is not a list of numbers"));
        }
        out.push(field, "cpuset", file, list.trim());
    }
}

/// CPU shares (v1: 2 … 262144, default 1024) as cpu.weight (1 … 10000, default 100), by the formula
/// the ecosystem agreed on in 2025 (runc 1.3.2, crun 1.23): both ends and the default map onto each other.
pub fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn memory_settings(memory: &LinuxMemory, out: &mut Collector) {
    let no_such = |given: bool, field, reason| given.then_some((field, reason));
    let refused = [
        no_such(
            memory.disable_oom_killer == Some(true),
            "memory.disableOOMKiller",
            "cgroup v2 has no such switch",
        ),
        no_such(
            memory.swappiness.is_some(),
            "memory.swappiness",
            "cgroup v2 has no such setting for a group",
        ),
        no_such(
            memory.use_hierarchy == Some(false),
            "memory.useHierarchy",
            "cgroup v2 always counts the groups below",
        ),
        no_such(
            memory.kernel.is_some_and(|limit| limit > 0),
            "memory.kernel",
            "cgroup v2 has no separate limit for kernel memory",
        ),
        no_such(
            memory.kernel_tcp.is_some_and(|limit| limit > 0),
            "memory.kernelTCP",
            "cgroup v2 has no separate limit for kernel memory",
        ),
    ];
    for (field, reason) in refused.into_iter().flatten() {
        out.refuse(field, reason);
    }
    for (field, value) in [
        ("memory.limit", memory.limit),
        ("memory.swap", memory.swap),
        ("memory.reservation", memory.reservation),
    ] {
        if value.is_some_and(|value| value < -1) {
            out.refuse(field, "is below -1, which means no limit");
        }
    }
    let limit = memory.limit.filter(|limit| *limit != 0);
    if let Some(swap) = memory.swap.filter(|swap| *swap != 0) {
        match limit {
            _ if swap < 0 => out.push("memory.swap", "memory", "memory.swap.max", "max"),
            // The spec counts memory and swap together, cgroup v2 swap alone.
            Some(limit) if limit > 0 && swap >= limit => {
                let alone = (swap - limit).to_string();
                out.push("memory.swap", "memory", "memory.swap.max", alone);
            }
            _ => out.refuse("memory.swap", "is below memory.limit, or there is none"),
        }
    }
    if let Some(limit) = limit {
        out.push("memory.limit", "memory", "memory.max", max_or(limit));
    }
    if let Some(reservation) = memory.reservation.filter(|n| *n != 0) {
        let value = max_or(reservation);
        out.push("memory.reservation", "memory", "memory.low", value);
    }
}

/// A limit that the group uses more than already, where the spec asks for that check
/// (`memory.checkBeforeUpdate`). `usage` holds memory and memory with swap, in bytes.
pub(super) fn above_limit(memory: &LinuxMemory, usage: (u64, u64)) -> Option<CgroupError> {
    if memory.check_before_update != Some(true) {
        return None;
    }
    let over = |field: &str, limit: Option<i64>, used: u64| {
        let limit = u64::try_from(limit?).ok().filter(|limit| *limit > 0)?;
        (used > limit).then(|| CgroupError::BadValue {
            field: format!("linux.resources.{field}"),
            reason: format!("{limit} is below the {used} bytes in use"),
        })
    };
    over("memory.limit", memory.limit, usage.0)
        .or_else(|| over("memory.swap", memory.swap, usage.1))
}

/// A weight of v1, 10 to 1000, as one of io.weight, 1 to 10000: the linear map of runc and crun
/// (cgroup-v2.rst, "io.weight").
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9_999 / 990
}

fn io_settings(io: &LinuxBlockIo, out: &mut Collector) {
    if io.leaf_weight.is_some_and(|weight| weight != 0) {
        out.refuse("blockIO.leafWeight", "does not exist in cgroup v2");
    }
    // The scheduler BFQ has its own file, with the numbers of v1; without it there is the cost model.
    let mut weigh = |field: &str, of: &str, weight: u16| {
        if !(10..=1000).contains(&weight) {
            out.refuse(field, &format!("{weight} is not within 10 … 1000"));
        }
        out.push(field, "io", "io.bfq.weight", format!("{of} {weight}"));
        if let Some(last) = out.settings.last_mut() {
            last.otherwise = Some(("io.weight", format!("{of} {}", io_weight(weight))));
        }
    };
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        weigh("blockIO.weight", "default", weight);
    }
    for (index, device) in io.weight_device.iter().enumerate() {
        let of = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            weigh(&format!("blockIO.weightDevice[{index}]"), &of, weight);
        }
    }
    for (index, device) in io.weight_device.iter().enumerate() {
        if device.leaf_weight.is_some_and(|weight| weight != 0) {
            let field = format!("blockIO.weightDevice[{index}].leafWeight");
            out.refuse(&field, "does not exist in cgroup v2");
        }
    }
    let throttles = [
        (
            "blockIO.throttleReadBpsDevice",
            "rbps",
            &io.throttle_read_bps_device,
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "wbps",
            &io.throttle_write_bps_device,
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "riops",
            &io.throttle_read_iops_device,
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "wiops",
            &io.throttle_write_iops_device,
        ),
    ];
    for (field, key, devices) in throttles {
        for device in devices {
            let value = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
            out.push(field, "io", "io.max", value);
        }
    }
}

fn hugepage_setting(limit: &LinuxHugepageLimit, out: &mut Collector) {
    let size = &limit.page_size;
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        out.refuse("hugepageLimits", &format!("`{size}` is not a page size"));
    }
    // Reserved pages count too: a mapping that is granted must not fail at its first touch.
    for file in ["max", "rsvd.max"] {
        let file = format!("hugetlb.{size}.{file}");
        out.push("hugepageLimits", "hugetlb", &file, limit.limit.to_string());
    }
}

/// Files named as they are; set last, so that they win.
fn unified(resources: &LinuxResources, out: &mut Collector) {
    const CONTROLLERS: [&str; 9] = [
        "cpu", "cpuset", "io", "memory", "hugetlb", "pids", "rdma", "misc", "dmem",
    ];
    for (file, value) in &resources.unified {
        let plain = file
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
        let owner = file
            .split('.')
            .next()
            .and_then(|prefix| CONTROLLERS.iter().find(|known| **known == prefix));
        let field = format!("unified.{file}");
        match owner {
            Some(controller) if plain && file.contains('.') => {
                out.push(&field, controller, file, value.clone());
            }
            _ => out.refuse(&field, "is not a file of a controller"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_new_formula() {
        for (millicpu, expected) in [
            (10, 4),
            (100, 17),
            (250, 35),
            (500, 59),
            (1000, 100),
            (2000, 174),
            (4000, 303),
            (8000, 532),
            (16_000, 942),
            (32_000, 1681),
            (64_000, 3023),
        ] {
            assert_eq!(
                weight((millicpu * 1024 / 1000).max(2)),
                expected,
                "{millicpu}m"
            );
        }
        assert_eq!(
            (weight(0), weight(2), weight(262_144), weight(1 << 40)),
            (1, 1, 10_000, 10_000)
        );
    }

    fn read(json: &str) -> Vec<(String, String)> {
        let resources = serde_json::from_str(json).unwrap();
        settings(&resources)
            .unwrap()
            .into_iter()
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    #[test]
    fn limits_become_files() {
        let rows = [
            (
                r#"{"cpu":{"shares":1024,"quota":50000,"period":100000}}"#,
                vec![("cpu.weight", "100"), ("cpu.max", "50000 100000")],
            ),
            (
                r#"{"cpu":{"quota":-1,"period":100000}}"#,
                vec![("cpu.max", "max 100000")],
            ),
            (
                r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
                vec![("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            ),
            (
                r#"{"memory":{"limit":1048576,"swap":2097152}}"#,
                vec![("memory.swap.max", "1048576"), ("memory.max", "1048576")],
            ),
            (
                r#"{"memory":{"limit":-1,"swap":-1}}"#,
                vec![("memory.swap.max", "max"), ("memory.max", "max")],
            ),
            (r#"{"memory":{"limit":0}}"#, vec![]),
            (r#"{"pids":{"limit":-1}}"#, vec![("pids.max", "max")]),
            (r#"{"pids":{"limit":7}}"#, vec![("pids.max", "7")]),
            (
                r#"{"unified":{"memory.high":"9","cpu.idle":"1"}}"#,
                vec![("cpu.idle", "1"), ("memory.high", "9")],
            ),
            (
                r#"{"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}]}}"#,
                vec![("io.bfq.weight", "default 10"), ("io.max", "8:0 rbps=5")],
            ),
            (
                r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1000}]}}"#,
                vec![("io.bfq.weight", "8:0 1000")],
            ),
            (
                r#"{"cpu":{"shares":1024,"idle":1}}"#,
                vec![("cpu.idle", "1")],
            ),
            (
                r#"{"cpu":{"quota":50000,"burst":10000}}"#,
                vec![("cpu.max.burst", "10000"), ("cpu.max", "50000")],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#,
                vec![("hugetlb.2MB.max", "4"), ("hugetlb.2MB.rsvd.max", "4")],
            ),
            (
                r#"{"rdma":{"mlx5_1":{"hcaHandles":3}}}"#,
                vec![("rdma.max", "mlx5_1 hca_handle=3 hca_object=max")],
            ),
        ];
        for (json, expected) in rows {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(f, v)| (f.to_owned(), v.to_owned()))
                .collect();
            assert_eq!(read(json), expected, "{json}");
        }
    }

    #[test]
    fn weights_of_devices_have_both_scales() {
        let resources = r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1000}]}}"#;
        let all = settings(&serde_json::from_str(resources).unwrap()).unwrap();
        assert_eq!(
            all[0].otherwise,
            Some(("io.weight", "8:0 10000".to_owned()))
        );
    }

    #[test]
    fn what_v2_cannot_do_is_refused_all_at_once() {
        let json = r#"{"memory":{"limit":10,"swap":5,"disableOOMKiller":true,"swappiness":1,"kernel":1,
            "useHierarchy":false,"reservation":-5},
            "cpu":{"realtimeRuntime":5,"realtimePeriod":6,"idle":2,"cpus":"x"},
            "blockIO":{"weight":5,"leafWeight":1,"weightDevice":[{"major":8,"minor":0,"leafWeight":1}]},
            "unified":{"../memory.max":"1","cgroup.procs":"1"},"rdma":{"a b":{"hcaHandles":1}},
            "network":{"classID":1},"hugepageLimits":[{"pageSize":"../x","limit":1}],
            "devices":[{"allow":true,"type":"p"}]}"#;
        let fields: Vec<String> = problems(&serde_json::from_str(json).unwrap())
            .into_iter()
            .map(|(field, _)| field.replace("linux.resources.", ""))
            .collect();
        let expected = [
            "cpu.realtimeRuntime",
            "cpu.realtimePeriod",
            "cpu.idle",
            "cpu.cpus",
            "memory.disableOOMKiller",
            "memory.swappiness",
            "memory.useHierarchy",
            "memory.kernel",
            "memory.reservation",
            "memory.swap",
            "blockIO.leafWeight",
            "blockIO.weight",
            "blockIO.weightDevice[0].leafWeight",
            "hugepageLimits",
            "network",
            "rdma",
            "unified.../memory.max",
            "unified.cgroup.procs",
            "devices[0]",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_limit_below_the_use_is_refused_where_asked() {
        let memory = |json: &str| serde_json::from_str::<LinuxMemory>(json).unwrap();
        let checked = memory(r#"{"limit":10,"swap":20,"checkBeforeUpdate":true}"#);
        assert!(above_limit(&checked, (10, 20)).is_none());
        assert!(above_limit(&checked, (11, 11)).is_some());
        assert!(above_limit(&checked, (10, 21)).is_some());
        assert!(above_limit(&memory(r#"{"limit":10}"#), (11, 11)).is_none());
    }
}
