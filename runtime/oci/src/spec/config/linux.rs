//! `linux`, but for its limits and its filter of system calls.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::table::{object, words};
use super::{LinuxResources, LinuxSeccomp};

object! {
    /// What Linux alone has.
    Linux {
        /// User ids of a new user namespace.
        uid_mappings: Vec<LinuxIdMapping> = optional "uidMappings",
        /// Its group ids.
        gid_mappings: Vec<LinuxIdMapping> = optional "gidMappings",
        /// Kernel parameters by their dotted names.
        sysctl: BTreeMap<String, String> = optional "sysctl",
        /// Limits.
        resources: Option<LinuxResources> = optional "resources",
        /// The cgroup below the mount of the hierarchy, or `slice:prefix:name`.
        cgroups_path: PathBuf = optional "cgroupsPath",
        /// Namespaces to make or to join.
        namespaces: Vec<LinuxNamespace> = optional "namespaces",
        /// Device nodes besides the default ones.
        devices: Vec<LinuxDevice> = optional "devices",
        /// Network devices to move in, by their names outside.
        net_devices: BTreeMap<String, LinuxNetDevice> = optional "netDevices",
        /// Filter of system calls.
        seccomp: Option<LinuxSeccomp> = optional "seccomp",
        /// `private`, `shared`, `slave` or `unbindable`, or one of these with an `r` before it.
        rootfs_propagation: String = optional "rootfsPropagation",
        /// Paths that cannot be read.
        masked_paths: Vec<PathBuf> = optional "maskedPaths",
        /// Paths that cannot be written.
        readonly_paths: Vec<PathBuf> = optional "readonlyPaths",
        /// SELinux label of the container's mounts.
        mount_label: String = optional "mountLabel",
        /// Group of cache and memory bandwidth.
        intel_rdt: Option<LinuxIntelRdt> = optional "intelRdt",
        /// Memory nodes.
        memory_policy: Option<LinuxMemoryPolicy> = optional "memoryPolicy",
        /// Execution domain.
        personality: Option<LinuxPersonality> = optional "personality",
        /// How far clocks of a new time namespace are ahead, by clock.
        time_offsets: BTreeMap<String, LinuxTimeOffset> = optional "timeOffsets",
    }

    /// One line of an id map (user_namespaces(7)).
    LinuxIdMapping {
        /// First id inside.
        container_id: u32 = defaulted "containerID",
        /// First id outside.
        host_id: u32 = defaulted "hostID",
        /// How many.
        size: u32 = defaulted "size",
    }

    /// A namespace.
    LinuxNamespace {
        /// Its kind.
        kind: LinuxNamespaceType = required "type",
        /// The file of one to join; none for a new one.
        path: PathBuf = optional "path",
    }

    /// A device node.
    LinuxDevice {
        /// Where, inside.
        path: PathBuf = required "path",
        /// Its kind.
        kind: LinuxDeviceType = required "type",
        /// Major number.
        major: i64 = defaulted "major",
        /// Minor number.
        minor: i64 = defaulted "minor",
        /// Permission bits.
        file_mode: Option<u32> = optional "fileMode",
        /// Owner.
        uid: Option<u32> = optional "uid",
        /// Owning group.
        gid: Option<u32> = optional "gid",
    }

    /// A network device to move in.
    LinuxNetDevice {
        /// Its name inside; the one it has, where there is none.
        name: String = optional "name",
    }

    /// A group of Intel RDT.
    LinuxIntelRdt {
        /// Its name.
        clos_id: String = optional "closID",
        /// Lines of its `schemata`.
        schemata: Vec<String> = optional "schemata",
        /// The line of its cache.
        l3_cache_schema: String = optional "l3CacheSchema",
        /// The line of its memory bandwidth.
        mem_bw_schema: String = optional "memBwSchema",
        /// Counters of the cache, until 1.2.
        enable_cmt: bool = optional "enableCMT",
        /// Counters of the bandwidth, until 1.2.
        enable_mbm: bool = optional "enableMBM",
        /// A monitoring group of its own.
        enable_monitoring: bool = optional "enableMonitoring",
    }

    /// A policy for memory nodes (set_mempolicy(2)).
    LinuxMemoryPolicy {
        /// The mode.
        mode: MemoryPolicyMode = required "mode",
        /// The nodes, as a list (cpuset(7)).
        nodes: String = optional "nodes",
        /// What more is asked.
        flags: Vec<MemoryPolicyFlag> = optional "flags",
    }

    /// An execution domain (personality(2)).
    LinuxPersonality {
        /// The domain.
        domain: LinuxPersonalityDomain = required "domain",
        /// None is defined.
        flags: Vec<String> = optional "flags",
    }

    /// How far a clock is ahead of the host's.
    LinuxTimeOffset {
        /// Seconds.
        secs: i64 = optional "secs",
        /// Nanoseconds on top.
        nanosecs: u32 = optional "nanosecs",
    }
}

words! {
    /// A kind of namespace.
    LinuxNamespaceType {
        /// Mounts.
        Mount = "mount",
        /// Cgroups.
        Cgroup = "cgroup",
        /// Host and domain name.
        Uts = "uts",
        /// System V IPC, POSIX message queues.
        Ipc = "ipc",
        /// Ids of users and groups.
        User = "user",
        /// Process ids.
        Pid = "pid",
        /// Network.
        Network = "network",
        /// Clocks.
        Time = "time",
    }

    /// A kind of device.
    LinuxDeviceType {
        /// Every kind, in a rule.
        All = "a",
        /// Block device.
        Block = "b",
        /// Character device.
        Character = "c",
        /// Unbuffered character device, which Linux has no other kind for.
        Unbuffered = "u",
        /// Named pipe.
        Fifo = "p",
    }

    /// A mode of set_mempolicy(2).
    MemoryPolicyMode {
        /// The default.
        Default = "MPOL_DEFAULT",
        /// Only these nodes.
        Bind = "MPOL_BIND",
        /// These nodes in turn.
        Interleave = "MPOL_INTERLEAVE",
        /// These nodes in turn, by weight.
        WeightedInterleave = "MPOL_WEIGHTED_INTERLEAVE",
        /// Rather this node.
        Preferred = "MPOL_PREFERRED",
        /// Rather these nodes.
        PreferredMany = "MPOL_PREFERRED_MANY",
        /// The node of the CPU.
        Local = "MPOL_LOCAL",
    }

    /// A flag of set_mempolicy(2).
    MemoryPolicyFlag {
        /// Pages are moved to where they are used.
        NumaBalancing = "MPOL_F_NUMA_BALANCING",
        /// Nodes count from the first allowed one.
        RelativeNodes = "MPOL_F_RELATIVE_NODES",
        /// Nodes stay as they are when the allowed ones change.
        StaticNodes = "MPOL_F_STATIC_NODES",
    }

    /// An execution domain.
    LinuxPersonalityDomain {
        /// The machine's own.
        Linux = "LINUX",
        /// 32 bits.
        Linux32 = "LINUX32",
    }
}
