//! Flags of `update`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `update`. A limit of 0, or none given, stays as it is.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// File with the limits as JSON (`linux.resources` of the specification), `-` for standard
    /// input; the other flags then do not count
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight for block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota in µs
    #[arg(long, value_name = "USEC")]
    pub cpu_period: Option<u64>,
    /// CPU time in a period in µs, −1 for no limit
    #[arg(long, allow_hyphen_values = true, value_name = "USEC")]
    pub cpu_quota: Option<i64>,
    /// CPU time in µs that may be saved up for a burst
    #[arg(long, value_name = "USEC")]
    pub cpu_burst: Option<u64>,
    /// CPU shares, 2 to 262144, relative to other containers
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// 1 to run only when a CPU is idle, 0 as usual
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Realtime period in µs (refused: cgroup v2 has none)
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime limit in µs (refused: cgroup v2 has none)
    #[arg(long, allow_hyphen_values = true, value_name = "USEC")]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to run on, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory limit in bytes, or with k, m, g; −1 for none
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Memory that is protected from reclaim
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE")]
    pub memory_reservation: Option<String>,
    /// Memory and swap together; −1 for no limit of swap
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE")]
    pub memory_swap: Option<String>,
    /// Ignored, as by runc
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// Ignored, as by runc
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Most processes and threads, −1 for no limit
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// Schema of the L3 cache (refused: Intel RDT is not supported)
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (refused: Intel RDT is not supported)
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Id of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}
