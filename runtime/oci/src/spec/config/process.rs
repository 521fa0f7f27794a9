//! `process`.

use std::path::PathBuf;

use super::read::{Field, Reader};
use super::table::{object, words};
use super::{Foreign, Node};
use crate::capability::{self, CapabilitySet};

object! {
    /// A process of the container.
    Process {
        /// Whether it gets a terminal of its own.
        terminal: bool = optional "terminal",
        /// Size of that terminal.
        console_size: Option<ConsoleSize> = optional "consoleSize",
        /// Who it is.
        user: User = defaulted "user",
        /// Program and arguments.
        args: Vec<String> = optional "args",
        /// Program and arguments on Windows.
        command_line: Option<Foreign> = optional "commandLine",
        /// The whole environment, `NAME=VALUE`.
        env: Vec<String> = optional "env",
        /// Working directory, absolute.
        cwd: PathBuf = required "cwd",
        /// Its capabilities; none of them where it is missing.
        capabilities: Option<LinuxCapabilities> = optional "capabilities",
        /// Resource limits.
        rlimits: Vec<PosixRlimit> = optional "rlimits",
        /// Whether execve may gain no privilege.
        no_new_privileges: bool = optional "noNewPrivileges",
        /// AppArmor profile.
        apparmor_profile: String = optional "apparmorProfile",
        /// Preference of the OOM killer, −1000 to 1000.
        oom_score_adj: Option<i32> = optional "oomScoreAdj",
        /// Scheduling policy.
        scheduler: Option<Scheduler> = optional "scheduler",
        /// SELinux label.
        selinux_label: String = optional "selinuxLabel",
        /// Class and level of its I/O.
        io_priority: Option<LinuxIoPriority> = optional "ioPriority",
        /// CPUs of a further process.
        exec_cpu_affinity: Option<CpuAffinity> = optional "execCPUAffinity",
    }

    /// Size of a terminal, in characters.
    ConsoleSize {
        /// Rows.
        height: u64 = defaulted "height",
        /// Columns.
        width: u64 = defaulted "width",
    }

    /// Ids of a process, as the container counts them.
    User {
        /// User id.
        uid: u32 = defaulted "uid",
        /// Group id.
        gid: u32 = defaulted "gid",
        /// File mode creation mask.
        umask: Option<u32> = optional "umask",
        /// Supplementary group ids.
        additional_gids: Vec<u32> = optional "additionalGids",
        /// Name of the user, on Windows.
        username: String = optional "username",
    }

    /// The five capability sets (capabilities(7)).
    LinuxCapabilities {
        /// What execve may ever grant.
        bounding: CapabilitySet = optional "bounding",
        /// What counts.
        effective: CapabilitySet = optional "effective",
        /// What files may pass on.
        inheritable: CapabilitySet = optional "inheritable",
        /// What the process may make effective.
        permitted: CapabilitySet = optional "permitted",
        /// What survives execve of an ordinary file.
        ambient: CapabilitySet = optional "ambient",
    }

    /// One resource limit (getrlimit(2)).
    PosixRlimit {
        /// Which.
        kind: PosixRlimitType = required "type",
        /// Up to where the soft limit can be raised.
        hard: u64 = defaulted "hard",
        /// The limit.
        soft: u64 = defaulted "soft",
    }

    /// Scheduling policy and its parameters (sched_setattr(2)).
    Scheduler {
        /// The policy.
        policy: SchedulerPolicy = required "policy",
        /// −20 to 19.
        nice: Option<i32> = optional "nice",
        /// 1 to 99, of the real-time policies.
        priority: Option<i32> = optional "priority",
        /// What more is asked.
        flags: Vec<SchedulerFlag> = optional "flags",
        /// Nanoseconds of `SCHED_DEADLINE`.
        runtime: Option<u64> = optional "runtime",
        /// Nanoseconds of `SCHED_DEADLINE`.
        deadline: Option<u64> = optional "deadline",
        /// Nanoseconds of `SCHED_DEADLINE`.
        period: Option<u64> = optional "period",
    }

    /// An I/O priority (ioprio_set(2)).
    LinuxIoPriority {
        /// Its class.
        class: IoPriorityClass = required "class",
        /// 0 (first) to 7 within the class.
        priority: i64 = defaulted "priority",
    }

    /// CPUs of a process that enters a container, as lists (cpuset(7)).
    CpuAffinity {
        /// Until it is in the container's cgroup.
        initial: String = optional "initial",
        /// From then on.
        last: String = optional "final",
    }
}

words! {
    /// A resource limit.
    PosixRlimitType {
        /// CPU time.
        Cpu = "RLIMIT_CPU",
        /// File size.
        Fsize = "RLIMIT_FSIZE",
        /// Data segment.
        Data = "RLIMIT_DATA",
        /// Stack.
        Stack = "RLIMIT_STACK",
        /// Core dump.
        Core = "RLIMIT_CORE",
        /// Resident memory.
        Rss = "RLIMIT_RSS",
        /// Processes of the user.
        Nproc = "RLIMIT_NPROC",
        /// Open descriptors.
        Nofile = "RLIMIT_NOFILE",
        /// Locked memory.
        Memlock = "RLIMIT_MEMLOCK",
        /// Address space.
        As = "RLIMIT_AS",
        /// File locks.
        Locks = "RLIMIT_LOCKS",
        /// Queued signals.
        Sigpending = "RLIMIT_SIGPENDING",
        /// POSIX message queues.
        Msgqueue = "RLIMIT_MSGQUEUE",
        /// Nice values.
        Nice = "RLIMIT_NICE",
        /// Real-time priority.
        Rtprio = "RLIMIT_RTPRIO",
        /// Real-time CPU time.
        Rttime = "RLIMIT_RTTIME",
    }

    /// A scheduling policy (sched(7)).
    SchedulerPolicy {
        /// The usual one.
        Other = "SCHED_OTHER",
        /// Real time, first in first out.
        Fifo = "SCHED_FIFO",
        /// Real time, in turn.
        Rr = "SCHED_RR",
        /// For long computations.
        Batch = "SCHED_BATCH",
        /// Never part of Linux.
        Iso = "SCHED_ISO",
        /// Only when nothing else runs.
        Idle = "SCHED_IDLE",
        /// By deadlines.
        Deadline = "SCHED_DEADLINE",
    }

    /// A flag of sched_setattr(2).
    SchedulerFlag {
        /// Children have the usual policy.
        ResetOnFork = "SCHED_FLAG_RESET_ON_FORK",
        /// Takes what other deadlines leave.
        Reclaim = "SCHED_FLAG_RECLAIM",
        /// Tells overruns by a signal.
        DlOverrun = "SCHED_FLAG_DL_OVERRUN",
        /// Leaves the policy.
        KeepPolicy = "SCHED_FLAG_KEEP_POLICY",
        /// Leaves the parameters.
        KeepParams = "SCHED_FLAG_KEEP_PARAMS",
        /// Sets the lower clamp.
        UtilClampMin = "SCHED_FLAG_UTIL_CLAMP_MIN",
        /// Sets the upper clamp.
        UtilClampMax = "SCHED_FLAG_UTIL_CLAMP_MAX",
    }

    /// A class of I/O.
    IoPriorityClass {
        /// Real time.
        RealTime = "IOPRIO_CLASS_RT",
        /// Best effort.
        BestEffort = "IOPRIO_CLASS_BE",
        /// Only when nothing else waits.
        Idle = "IOPRIO_CLASS_IDLE",
    }
}

/// A list of names. One that nobody knows is noted and left out: it is of a newer kernel, and what
/// this one cannot grant it need not.
impl Field for CapabilitySet {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let names = Vec::<String>::read(node, reader);
        let mut set = CapabilitySet::default();
        for name in names {
            match capability::of_name(&name) {
                Some(bit) => set |= bit,
                None if name.is_empty() || reader.capabilities.contains(&name) => {}
                None => reader.capabilities.push(name),
            }
        }
        set
    }

    fn node(&self) -> Node<'_> {
        let names = capability::names(self.0).into_iter();
        Node::List(names.map(|name| Node::Text(name.into())).collect())
    }

    fn is_absent(&self) -> bool {
        self.0 == 0
    }
}
