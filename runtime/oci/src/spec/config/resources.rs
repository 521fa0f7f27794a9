//! `linux.resources`.

use std::collections::BTreeMap;

use super::LinuxDeviceType;
use super::table::object;

object! {
    /// Limits of a cgroup.
    LinuxResources {
        /// Which devices may be used, the last rule that matches counting.
        devices: Vec<LinuxDeviceCgroup> = optional "devices",
        /// Memory.
        memory: Option<LinuxMemory> = optional "memory",
        /// CPU time and CPUs.
        cpu: Option<LinuxCpu> = optional "cpu",
        /// Processes.
        pids: Option<LinuxPids> = optional "pids",
        /// Block I/O.
        block_io: Option<LinuxBlockIo> = optional "blockIO",
        /// Huge pages.
        hugepage_limits: Vec<LinuxHugepageLimit> = optional "hugepageLimits",
        /// Marks of cgroup v1 on packets.
        network: Option<LinuxNetwork> = optional "network",
        /// RDMA by device.
        rdma: BTreeMap<String, LinuxRdma> = optional "rdma",
        /// Files of cgroup v2 and what to write there.
        unified: BTreeMap<String, String> = optional "unified",
    }

    /// A rule for devices.
    LinuxDeviceCgroup {
        /// Whether it allows.
        allow: bool = defaulted "allow",
        /// Kind of device; none for all.
        kind: Option<LinuxDeviceType> = optional "type",
        /// Major number; none for all.
        major: Option<i64> = optional "major",
        /// Minor number; none for all.
        minor: Option<i64> = optional "minor",
        /// Of `r`, `w` and `m`; none for all.
        access: String = optional "access",
    }

    /// Memory, in bytes; −1 is no limit.
    LinuxMemory {
        /// At most.
        limit: Option<i64> = optional "limit",
        /// Not reclaimed below.
        reservation: Option<i64> = optional "reservation",
        /// Memory and swap together at most.
        swap: Option<i64> = optional "swap",
        /// Memory of the kernel, of cgroup v1.
        kernel: Option<i64> = optional "kernel",
        /// Memory of TCP buffers, of cgroup v1.
        kernel_tcp: Option<i64> = optional "kernelTCP",
        /// 0 to 100, of cgroup v1.
        swappiness: Option<u64> = optional "swappiness",
        /// Whether to stop instead of killing, of cgroup v1.
        disable_oom_killer: Option<bool> = optional "disableOOMKiller",
        /// Whether groups below count, of cgroup v1.
        use_hierarchy: Option<bool> = optional "useHierarchy",
        /// Whether a limit below what is in use is an error.
        check_before_update: Option<bool> = optional "checkBeforeUpdate",
    }

    /// CPU time, in microseconds, and CPUs.
    LinuxCpu {
        /// Share against others, 2 to 262144.
        shares: Option<u64> = optional "shares",
        /// CPU time in a period.
        quota: Option<i64> = optional "quota",
        /// What may be saved up beyond the quota.
        burst: Option<u64> = optional "burst",
        /// The period.
        period: Option<u64> = optional "period",
        /// CPU time of real-time processes in a period, of cgroup v1.
        realtime_runtime: Option<i64> = optional "realtimeRuntime",
        /// That period, of cgroup v1.
        realtime_period: Option<u64> = optional "realtimePeriod",
        /// CPUs, as a list (cpuset(7)).
        cpus: String = optional "cpus",
        /// Memory nodes, as a list.
        mems: String = optional "mems",
        /// 1 for only when nothing else runs.
        idle: Option<i64> = optional "idle",
    }

    /// Processes.
    LinuxPids {
        /// At most; −1 is no limit.
        limit: Option<i64> = optional "limit",
    }

    /// Block I/O.
    LinuxBlockIo {
        /// Share against others, 10 to 1000.
        weight: Option<u16> = optional "weight",
        /// Share against groups below, of cgroup v1.
        leaf_weight: Option<u16> = optional "leafWeight",
        /// Shares by device.
        weight_device: Vec<LinuxWeightDevice> = optional "weightDevice",
        /// Bytes read a second.
        throttle_read_bps_device: Vec<LinuxThrottleDevice> = optional "throttleReadBpsDevice",
        /// Bytes written a second.
        throttle_write_bps_device: Vec<LinuxThrottleDevice> = optional "throttleWriteBpsDevice",
        /// Reads a second.
        throttle_read_iops_device: Vec<LinuxThrottleDevice> = optional "throttleReadIOPSDevice",
        /// Writes a second.
        throttle_write_iops_device: Vec<LinuxThrottleDevice> = optional "throttleWriteIOPSDevice",
    }

    /// The share of a device.
    LinuxWeightDevice {
        /// Major number.
        major: i64 = defaulted "major",
        /// Minor number.
        minor: i64 = defaulted "minor",
        /// Share against others.
        weight: Option<u16> = optional "weight",
        /// Share against groups below, of cgroup v1.
        leaf_weight: Option<u16> = optional "leafWeight",
    }

    /// The rate of a device.
    LinuxThrottleDevice {
        /// Major number.
        major: i64 = defaulted "major",
        /// Minor number.
        minor: i64 = defaulted "minor",
        /// At most, a second.
        rate: u64 = defaulted "rate",
    }

    /// Huge pages of one size.
    LinuxHugepageLimit {
        /// The size, such as `2MB`.
        page_size: String = defaulted "pageSize",
        /// Bytes at most.
        limit: u64 = defaulted "limit",
    }

    /// Marks on packets, of cgroup v1.
    LinuxNetwork {
        /// The class.
        class_id: Option<u32> = optional "classID",
        /// Priorities by interface.
        priorities: Vec<LinuxInterfacePriority> = optional "priorities",
    }

    /// The priority of an interface.
    LinuxInterfacePriority {
        /// The interface.
        name: String = defaulted "name",
        /// Its priority.
        priority: u32 = defaulted "priority",
    }

    /// RDMA of one device.
    LinuxRdma {
        /// Handles at most.
        hca_handles: Option<u32> = optional "hcaHandles",
        /// Objects at most.
        hca_objects: Option<u32> = optional "hcaObjects",
    }
}
