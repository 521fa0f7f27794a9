//! Limits of a spec → the files of cgroup v2 (cgroup-v2.rst), as data: what to write where.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use super::CgroupError;

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
}

/// What `resources` asks for, in an order in which the kernel takes it.
pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    let mut out = Vec::new();
    if let Some(cpu) = resources.cpu() {
        cpu_settings(cpu, &mut out)?;
    }
    if let Some(memory) = resources.memory() {
        memory_settings(memory, &mut out)?;
    }
    if let Some(pids) = resources.pids()
        && pids.limit() != 0
    {
        push(
            &mut out,
            "pids.limit",
            "pids",
            "pids.max",
            max_or(pids.limit()),
        );
    }
    if let Some(io) = resources.block_io() {
        io_settings(io, &mut out)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        hugepage_setting(limit, &mut out)?;
    }
    if resources
        .network()
        .as_ref()
        .is_some_and(|network| *network != Default::default())
    {
        return Err(bad(
            "network",
            "net_cls and net_prio do not exist in cgroup v2",
        ));
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let handles = limit.hca_handles().map_or("max".into(), |n| n.to_string());
        let objects = limit.hca_objects().map_or("max".into(), |n| n.to_string());
        push(
            &mut out,
            "rdma",
            "rdma",
            "rdma.max",
            format!("{device} hca_handle={handles} hca_object={objects}"),
        );
    }
    unified(resources, &mut out)?;
    Ok(out)
}

fn push(
    out: &mut Vec<Setting>,
    field: &str,
    controller: &'static str,
    file: &str,
    value: impl Into<String>,
) {
    out.push(Setting {
        field: field.into(),
        controller,
        file: file.into(),
        value: value.into(),
    });
}

fn bad(field: &str, reason: &str) -> CgroupError {
    CgroupError::BadValue {
        field: format!("linux.resources.{field}"),
        reason: reason.into(),
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

fn cpu_settings(cpu: &LinuxCpu, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if cpu.realtime_runtime().is_some_and(|n| n != 0)
        || cpu.realtime_period().is_some_and(|n| n != 0)
    {
        return Err(bad(
            "cpu.realtimeRuntime",
            "cgroup v2 has no realtime limits",
        ));
    }
    if let Some(idle) = cpu.idle() {
        push(out, "cpu.idle", "cpu", "cpu.idle", idle.to_string());
    }
    if let Some(shares) = cpu.shares()
        && shares != 0
    {
        push(
            out,
            "cpu.shares",
            "cpu",
            "cpu.weight",
            weight(shares).to_string(),
        );
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
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
        push(out, "cpu.quota", "cpu", "cpu.max", value);
    }
    if let Some(burst) = cpu.burst() {
        push(out, "cpu.burst", "cpu", "cpu.max.burst", burst.to_string());
    }
    for (field, file, list) in [
        ("cpu.cpus", "cpuset.cpus", cpu.cpus()),
        ("cpu.mems", "cpuset.mems", cpu.mems()),
    ] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            push(out, field, "cpuset", file, list.clone());
        }
    }
    Ok(())
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

fn memory_settings(memory: &LinuxMemory, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if memory.disable_oom_killer() == Some(true) {
        return Err(bad(
            "memory.disableOOMKiller",
            "cgroup v2 has no such switch",
        ));
    }
    for (field, value) in [
        ("memory.kernel", memory.kernel()),
        ("memory.kernelTCP", memory.kernel_tcp()),
    ] {
        if value.is_some_and(|limit| limit > 0) {
            return Err(bad(
                field,
                "cgroup v2 has no separate limit for kernel memory",
            ));
        }
    }
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        let value = match limit {
            _ if swap < 0 => "max".into(),
            // The spec counts memory and swap together, cgroup v2 swap alone.
            Some(limit) if limit > 0 && swap >= limit => (swap - limit).to_string(),
            _ => {
                return Err(bad(
                    "memory.swap",
                    "is below memory.limit, or there is none",
                ));
            }
        };
        push(out, "memory.swap", "memory", "memory.swap.max", value);
    }
    if let Some(limit) = limit {
        push(out, "memory.limit", "memory", "memory.max", max_or(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|n| *n != 0) {
        push(
            out,
            "memory.reservation",
            "memory",
            "memory.low",
            max_or(reservation),
        );
    }
    Ok(())
}

fn io_settings(io: &LinuxBlockIo, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(bad("blockIO.leafWeight", "does not exist in cgroup v2"));
    }
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        // 10 … 1000 of v1 onto 1 … 10000 (cgroup-v2.rst, "io.weight"; the linear map of runc and crun).
        let weight = 1 + (u64::from(weight).saturating_sub(10)) * 9_999 / 990;
        push(
            out,
            "blockIO.weight",
            "io",
            "io.weight",
            format!("default {weight}"),
        );
    }
    if io
        .weight_device()
        .as_ref()
        .is_some_and(|all| !all.is_empty())
    {
        return Err(bad("blockIO.weightDevice", "is not supported"));
    }
    let throttles = [
        (
            "blockIO.throttleReadBpsDevice",
            "rbps",
            io.throttle_read_bps_device(),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "wbps",
            io.throttle_write_bps_device(),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "riops",
            io.throttle_read_iops_device(),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "wiops",
            io.throttle_write_iops_device(),
        ),
    ];
    for (field, key, devices) in throttles {
        for device in devices.iter().flatten() {
            let value = format!(
                "{}:{} {key}={}",
                device.major(),
                device.minor(),
                device.rate()
            );
            push(out, field, "io", "io.max", value);
        }
    }
    Ok(())
}

fn hugepage_setting(limit: &LinuxHugepageLimit, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let size = limit.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(bad(
            "hugepageLimits",
            &format!("`{size}` is not a page size"),
        ));
    }
    for file in [
        format!("hugetlb.{size}.max"),
        format!("hugetlb.{size}.rsvd.max"),
    ] {
        push(
            out,
            "hugepageLimits",
            "hugetlb",
            &file,
            max_or(limit.limit()),
        );
    }
    Ok(())
}

/// Files named as they are; set last, so that they win.
fn unified(resources: &LinuxResources, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    const CONTROLLERS: [&str; 8] = [
        "cpu", "cpuset", "io", "memory", "hugetlb", "pids", "rdma", "misc",
    ];
    let mut all: Vec<_> = resources.unified().iter().flatten().collect();
    all.sort();
    for (file, value) in all {
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
                push(out, &field, controller, file, value.clone())
            }
            _ => return Err(bad(&field, "is not a file of a controller")),
        }
    }
    Ok(())
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
                vec![("io.weight", "default 1"), ("io.max", "8:0 rbps=5")],
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
    fn what_v2_cannot_do_is_refused() {
        for json in [
            r#"{"memory":{"swap":5}}"#,
            r#"{"memory":{"limit":10,"swap":5}}"#,
            r#"{"memory":{"disableOOMKiller":true}}"#,
            r#"{"cpu":{"realtimeRuntime":5}}"#,
            r#"{"unified":{"../memory.max":"1"}}"#,
            r#"{"unified":{"cgroup.procs":"1"}}"#,
            r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
        ] {
            let resources = serde_json::from_str(json).unwrap();
            assert!(settings(&resources).is_err(), "{json}");
        }
    }
}
