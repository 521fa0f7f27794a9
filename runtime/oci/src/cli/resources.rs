//! Arguments of `update`.

use std::path::PathBuf;

use super::flag::{Arguments, Flag, Operand, Slot};

/// Arguments of `update`; a limit that is not given stays as it is.
#[derive(Debug, Clone, Default)]
pub struct UpdateArgs {
    /// File with the limits as JSON, `-` for standard input.
    pub resources: Option<PathBuf>,
    /// Weight for block devices, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota in µs.
    pub cpu_period: Option<u64>,
    /// CPU time in a period in µs, −1 for no limit.
    pub cpu_quota: Option<i64>,
    /// CPU time in µs that may be saved up for a burst.
    pub cpu_burst: Option<u64>,
    /// CPU shares, 2 to 262144.
    pub cpu_share: Option<u64>,
    /// 1 to run only when a CPU is idle.
    pub cpu_idle: Option<i64>,
    /// Realtime period in µs.
    pub cpu_rt_period: Option<u64>,
    /// Realtime limit in µs.
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to run on.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use.
    pub cpuset_mems: Option<String>,
    /// Memory limit.
    pub memory: Option<String>,
    /// Memory that is protected from reclaim.
    pub memory_reservation: Option<String>,
    /// Memory and swap together.
    pub memory_swap: Option<String>,
    /// Most processes and threads, −1 for no limit.
    pub pids_limit: Option<i64>,
    /// Schema of the L3 cache.
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth.
    pub mem_bw_schema: Option<String>,
    /// Id of the container.
    pub id: String,
}

impl Arguments for UpdateArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&FILE, &CPU, &MEMORY, &OTHER];
    const OPERANDS: &'static [Operand<Self>] = &[Operand::one(
        "CONTAINER",
        "Id of the container",
        |a, word| a.id.put(word),
    )];
}

const FILE: [Flag<UpdateArgs>; 1] = [Flag::<UpdateArgs>::value(
    "resources",
    "FILE",
    "File with the limits as JSON (`linux.resources` of the specification), `-` for standard \
     input; the other flags then do not count",
    |a, word| a.resources.put(word),
)
.short('r')];

const CPU: [Flag<UpdateArgs>; 9] = [
    Flag::<UpdateArgs>::value(
        "cpu-period",
        "USEC",
        "Period of the CPU quota in µs",
        |a, word| a.cpu_period.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "cpu-quota",
        "USEC",
        "CPU time in a period in µs, −1 for no limit",
        |a, word| a.cpu_quota.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "cpu-burst",
        "USEC",
        "CPU time in µs that may be saved up for a burst",
        |a, word| a.cpu_burst.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "cpu-share",
        "SHARES",
        "CPU shares, 2 to 262144, relative to other containers",
        |a, word| a.cpu_share.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "cpu-idle",
        "0|1",
        "1 to run only when a CPU is idle, 0 as usual",
        |a, word| a.cpu_idle.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "cpu-rt-period",
        "USEC",
        "Realtime period in µs (refused: cgroup v2 has none)",
        |a, word| a.cpu_rt_period.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "cpu-rt-runtime",
        "USEC",
        "Realtime limit in µs (refused: cgroup v2 has none)",
        |a, word| a.cpu_rt_runtime.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "cpuset-cpus",
        "LIST",
        "CPUs to run on, such as 0-2,7",
        |a, word| a.cpuset_cpus.put(word),
    ),
    Flag::<UpdateArgs>::value("cpuset-mems", "LIST", "Memory nodes to use", |a, word| {
        a.cpuset_mems.put(word)
    }),
];

const MEMORY: [Flag<UpdateArgs>; 5] = [
    Flag::<UpdateArgs>::value(
        "memory",
        "SIZE",
        "Memory limit in bytes, or with k, m, g; −1 for none",
        |a, word| a.memory.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "memory-reservation",
        "SIZE",
        "Memory that is protected from reclaim",
        |a, word| a.memory_reservation.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "memory-swap",
        "SIZE",
        "Memory and swap together; −1 for no limit of swap",
        |a, word| a.memory_swap.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "kernel-memory",
        "SIZE",
        "Ignored, as by runc",
        |_, _| Ok(()),
    )
    .hidden(),
    Flag::<UpdateArgs>::value(
        "kernel-memory-tcp",
        "SIZE",
        "Ignored, as by runc",
        |_, _| Ok(()),
    )
    .hidden(),
];

const OTHER: [Flag<UpdateArgs>; 4] = [
    Flag::<UpdateArgs>::value(
        "blkio-weight",
        "WEIGHT",
        "Weight for block devices, 10 to 1000",
        |a, word| a.blkio_weight.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "pids-limit",
        "N",
        "Most processes and threads, −1 for no limit",
        |a, word| a.pids_limit.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "l3-cache-schema",
        "SCHEMA",
        "Schema of the L3 cache (refused: Intel RDT is not supported)",
        |a, word| a.l3_cache_schema.put(word),
    ),
    Flag::<UpdateArgs>::value(
        "mem-bw-schema",
        "SCHEMA",
        "Schema of the memory bandwidth (refused: Intel RDT is not supported)",
        |a, word| a.mem_bw_schema.put(word),
    ),
];
