//! cgroup v2: finding the hierarchy, making a container's group, limits, killing, reading.

mod devices;
mod fs;
mod limits;
mod readback;
mod resources;
mod systemd;
mod usage;

pub use fs::{Cgroup, CgroupError, Events, Host, mount_point};
pub(crate) use readback::{
    device_programs, expected_device_program, requested_device_program, requested_files,
};
pub use resources::{problems, weight};
pub use systemd::{Placeholder, Scope, SystemdError};
pub use usage::Usage;

/// A limit that was asked for and that the host's cgroups do not enforce.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NotEnforced {
    /// The field of the spec, such as `linux.resources.memory.limit`.
    pub field: String,
    /// Why, such as `controller memory is not in the cgroup2 hierarchy`.
    pub reason: String,
}

/// Use of resources by a cgroup; what the host cannot tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used, in microseconds (`cpu.stat` usage_usec).
    pub cpu_usage_usec: Option<u64>,
    /// Memory in use, in bytes (`memory.current`).
    pub memory_current: Option<u64>,
    /// Memory in use which is not reclaimable file cache, in bytes: current − inactive_file.
    pub memory_working_set: Option<u64>,
    /// The limit in bytes; `None` when unlimited or unknown.
    pub memory_max: Option<u64>,
    /// Anonymous memory in bytes (`memory.stat` anon).
    pub memory_rss: Option<u64>,
    /// Page faults (`memory.stat` pgfault).
    pub page_faults: Option<u64>,
    /// Page faults that read from storage (`memory.stat` pgmajfault).
    pub major_page_faults: Option<u64>,
    /// Swap in use, in bytes.
    pub swap_current: Option<u64>,
    /// Number of processes.
    pub pids_current: Option<u64>,
}
