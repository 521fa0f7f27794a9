//! [`Plan`]: everything the child will do, fully resolved by the parent.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use berth_sys::creds::CapabilityMasks;
use berth_sys::idmap::IdMap;
use berth_sys::mount::{AttributeChange, Propagation};
use berth_sys::ns::NamespaceKind;
use berth_sys::sched::{Mask, Scheduler};
use berth_sys::seccomp::Instruction;

use crate::cgroup::Scope;
use crate::spec::SpecErrors;
use crate::spec::config::{LinuxResources, Process, Spec};

/// What a spec does not say itself: who the container is and where its files are.
#[derive(Debug, Clone)]
pub struct Source {
    /// The container's id, unique under one state root.
    pub id: String,
    /// The bundle directory; relative mount sources start here.
    pub bundle: PathBuf,
    /// Where the root file system comes from.
    pub rootfs: RootfsSource,
    /// Whether and how the container is put into a cgroup.
    pub cgroup: CgroupMode,
}

/// Where a root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RootfsSource {
    /// A directory of the host, used in place.
    Path(PathBuf),
    /// Layers joined by overlay inside the container's own mount namespace.
    Overlay {
        /// Layer directories, topmost first.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// Overlay's scratch directory, on the file system of `upper`.
        work: PathBuf,
        /// Mount without the writable layer's effect: nothing can be written.
        readonly: bool,
    },
}

/// Whether and how the container is put into a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CgroupMode {
    /// The container stays in the caller's cgroup.
    Disabled,
    /// A cgroup is made at `linux.cgroupsPath` below the cgroup2 mount.
    Managed {
        /// Whether limits that the host cannot enforce are reported (true) or refused (false).
        degraded_ok: bool,
    },
    /// systemd makes the cgroup: a scope, by the `slice:prefix:name` of `linux.cgroupsPath`.
    Systemd {
        /// As above.
        degraded_ok: bool,
    },
}

/// Everything that `launch::create` will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// The bundle directory.
    pub bundle: PathBuf,
    /// Namespaces to make and to join.
    pub namespaces: Namespaces,
    /// Network devices of the caller to move into the container's network namespace.
    pub net_devices: Vec<NetDevice>,
    /// Host name to set in the container's own UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name to set in the container's own UTS namespace.
    pub domainname: Option<String>,
    /// The root file system.
    pub rootfs: RootfsPlan,
    /// Namespaced kernel parameters: path below `/proc/sys`, value.
    pub sysctls: BTreeMap<PathBuf, String>,
    /// The first process.
    pub process: ProcessPlan,
    /// The cgroup.
    pub cgroup: CgroupPlan,
    /// Programs to run at points of the life cycle.
    pub hooks: Hooks,
    /// Version of the specification which the spec claims.
    pub oci_version: String,
    /// The spec's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Programs to run at points of the life cycle (config.md, "POSIX-platform Hooks").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `prestart` and `createRuntime`: by the parent, once the namespaces exist.
    pub create_runtime: Vec<Hook>,
    /// `createContainer`: in the container's namespaces, before the root changes.
    pub create_container: Vec<Hook>,
    /// `startContainer`: inside the container, before its program.
    pub start_container: Vec<Hook>,
    /// `poststart`: by whoever starts it, once the program runs.
    pub poststart: Vec<Hook>,
    /// `poststop`: by whoever deletes it, at the end.
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its list and place in it, such as `createRuntime hook #0`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Its name and arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// Namespaces of a container.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    /// Kinds to create.
    pub create: Vec<NamespaceKind>,
    /// Kinds to join, each with the path of its file.
    pub join: Vec<(NamespaceKind, PathBuf)>,
    /// Maps of a new user namespace; those which a joined one must have, or empty.
    pub ids: IdMaps,
    /// Offsets of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
}

/// A network device that changes hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name in the caller's network namespace.
    pub outside: String,
    /// Its name in the container's.
    pub inside: String,
}

/// How far a clock of a time namespace is ahead of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: &'static str,
    /// Whole seconds, negative for a clock that is behind.
    pub seconds: i64,
    /// Nanoseconds on top, below a second.
    pub nanoseconds: u32,
}

impl fmt::Display for TimeOffset {
    /// As `/proc/<pid>/timens_offsets` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.clock, self.seconds, self.nanoseconds)
    }
}

/// A pair of id maps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<IdMap>,
    /// Group ids.
    pub gids: Vec<IdMap>,
}

/// The root file system of a container.
#[derive(Debug, Clone)]
pub struct RootfsPlan {
    /// Where it comes from.
    pub source: RootfsSource,
    /// Whether the root mount is made read-only at the end.
    pub readonly: bool,
    /// Whether the root is entered by chroot instead of pivot_root (`--no-pivot`).
    pub no_pivot: bool,
    /// Propagation of the container's root mount.
    pub propagation: Propagation,
    /// Mounts in the spec's order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes: the default ones and the spec's.
    pub devices: Vec<DevicePlan>,
    /// Paths hidden behind an empty read-only directory or the null device.
    pub masked: Vec<PathBuf>,
    /// Paths made read-only.
    pub readonly_paths: Vec<PathBuf>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// Absolute path inside the root file system.
    pub target: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Attributes of the mount. On a bind mount they replace all those of its source, as far as the
    /// kernel has not locked them.
    pub attributes: AttributeChange,
    /// Attributes of the mount and of all below it (the `r…` options).
    pub recursive_attributes: AttributeChange,
    /// Propagation types, applied in order, each with whether it is recursive.
    pub propagation: Vec<(Propagation, bool)>,
    /// What the kernel has no flag for.
    pub extensions: MountExtensions,
}

/// Options of a mount which are not attributes of the kernel's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountExtensions {
    /// `copy-symlink`: a source which is a symbolic link is made again at the target.
    pub copy_symlink: bool,
    /// `tmpcopyup`: a tmpfs starts with a copy of what it covers.
    pub copy_up: bool,
    /// `idmap`, `ridmap`, and mappings of the mount.
    pub id_map: Option<IdMapPlan>,
}

/// How the ids of a bind mount are translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMapPlan {
    /// The user and group maps; none takes those of the container's user namespace.
    pub maps: Option<IdMaps>,
    /// Whether the mounts below are translated too (`ridmap`).
    pub recursive: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A new file system.
    FileSystem {
        /// Its type, such as `tmpfs`.
        kind: String,
        /// The source string shown in mountinfo.
        source: String,
        /// Parameters `key=value`, in order.
        values: Vec<(String, String)>,
        /// Parameters without value.
        flags: Vec<String>,
    },
    /// A mount that the container has already, changed (`remount`); what no option names stays.
    Remount {
        /// Parameters `key=value` of its file system, in order.
        values: Vec<(String, String)>,
        /// Parameters without value.
        flags: Vec<String>,
    },
    /// The cgroup2 hierarchy as the container may see it.
    Cgroup {
        /// Seen from a cgroup namespace of its own; else a copy of the host's mount, because a new
        /// one made there would reset options of the whole hierarchy (cgroup-v2.rst, "nsdelegate").
        own: bool,
    },
}

/// One device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// Absolute path inside the root file system.
    pub path: PathBuf,
    /// Block, character or FIFO.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
}

/// The kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block device.
    Block,
    /// Character device.
    Character,
    /// Named pipe.
    Fifo,
}

/// The process that a container or an exec session starts with.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// Program and arguments.
    pub args: Vec<CString>,
    /// The whole environment.
    pub env: Vec<CString>,
    /// Working directory, absolute, inside the root file system.
    pub cwd: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// The five capability sets.
    pub capabilities: CapabilityMasks,
    /// Whether execve may gain no privilege.
    pub no_new_privs: bool,
    /// AppArmor profile to enter at exec.
    pub apparmor: Option<String>,
    /// SELinux label to get at exec.
    pub selinux: Option<String>,
    /// Where and when it runs.
    pub schedule: Schedule,
    /// The seccomp filter.
    pub seccomp: Option<Filter>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Preference of the OOM killer, −1000 to 1000; none leaves the inherited value.
    pub oom_score_adj: Option<i32>,
    /// Whether the process gets a terminal of its own.
    pub terminal: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// How many descriptors from 3 on the process inherits (`--preserve-fds`).
    pub preserve_fds: u32,
    /// Whether it gets a session keyring of its own (not with `--no-new-keyring`).
    pub new_keyring: bool,
}

/// Where and when a process runs; what is absent stays as inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// Class and level of its I/O.
    pub io_priority: Option<IoPriority>,
    /// CPUs while it is put into the container's cgroup; only of a further process.
    pub initial_cpus: Option<Mask>,
    /// CPUs from then on; only of a further process.
    pub final_cpus: Option<Mask>,
    /// Execution domain, a number of personality(2).
    pub personality: Option<u32>,
    /// Which memory nodes it uses.
    pub memory: Option<MemoryPolicy>,
}

/// An I/O priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    /// 1 real time, 2 best effort, 3 idle.
    pub class: u8,
    /// 0 (first) to 7.
    pub level: u8,
}

/// A NUMA policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` number with its flags.
    pub mode: u32,
    /// Its nodes.
    pub nodes: Option<Mask>,
}

/// A compiled seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The instructions.
    pub program: Vec<Instruction>,
    /// Bits of [`berth_sys::seccomp::flag`].
    pub flags: u32,
    /// Who decides the calls that the filter notifies of; none when it notifies of none.
    pub listener: Option<Listener>,
}

/// Who decides the calls of `SCMP_ACT_NOTIFY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// A stream socket of the host.
    pub path: PathBuf,
    /// What it is told besides the state.
    pub metadata: String,
    /// The container's state object, for a further process with the `pid` of its init.
    pub state: serde_json::Value,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// The name in the spec, such as `RLIMIT_NOFILE`.
    pub name: String,
    /// Its `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// The cgroup of a container.
#[derive(Debug, Clone)]
pub struct CgroupPlan {
    /// Whether there is one.
    pub mode: CgroupMode,
    /// Its path relative to the cgroup2 mount, without leading slash.
    pub path: PathBuf,
    /// The scope, where systemd makes it.
    pub scope: Option<Scope>,
    /// Its limits.
    pub resources: LinuxResources,
}

/// What `launch::pod` will do: a pause process that holds a pod's namespaces.
#[derive(Debug)]
pub struct PodPlan {
    /// The pause program, opened for reading. Static: a dynamic one gets the host's library folders to see.
    pub pause: OwnedFd,
    /// A new network namespace.
    pub net: bool,
    /// A new IPC namespace.
    pub ipc: bool,
    /// A new UTS namespace.
    pub uts: bool,
    /// A new PID namespace, in which the pause process is init.
    pub pid: bool,
    /// Host name to set in the new UTS namespace.
    pub hostname: Option<String>,
    /// Kernel parameters by dotted name; each must belong to one of the new namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Absolute path of the cgroup2 directory it is born into.
    pub cgroup: Option<PathBuf>,
    /// Preference of the OOM killer.
    pub oom_score_adj: Option<i32>,
}

/// What `launch::exec` will do: one more process in a running container.
#[derive(Debug, Clone)]
pub struct ExecPlan {
    /// Process whose namespaces and root are joined: the container's init.
    pub target_pid: i32,
    /// The process to start.
    pub process: ProcessPlan,
    /// Absolute path of the cgroup2 directory it is born into.
    pub cgroup: Option<PathBuf>,
    /// Whether it must be that very group: otherwise, where the workload gave the group inner
    /// controllers and it can hold no process, the process goes to where init is.
    pub cgroup_is_exact: bool,
    /// Whether to wait for as long as the group is frozen, instead of failing.
    pub wait_while_frozen: bool,
}

impl Plan {
    /// Whether a namespace of this kind is joined by its path.
    pub fn joins(&self, kind: NamespaceKind) -> bool {
        self.namespaces
            .join
            .iter()
            .any(|(joined, _)| *joined == kind)
    }

    /// Whether making the container takes a procfs, user namespaces and the OOM score aside.
    pub(crate) fn uses_procfs(&self) -> bool {
        let time = self.namespaces.create.contains(&NamespaceKind::Time);
        time || !self.sysctls.is_empty() || self.process.is_labelled()
    }

    /// Checks the whole spec and resolves it; all errors are returned at once, each with its JSON path.
    pub fn from_spec(spec: &Spec, source: &Source) -> Result<Plan, SpecErrors> {
        crate::spec::validate::plan(spec, source)
    }
}

impl ProcessPlan {
    /// Whether it gets a security label, which is set by way of procfs.
    pub(crate) fn is_labelled(&self) -> bool {
        self.apparmor.is_some() || self.selinux.is_some()
    }
}

impl ExecPlan {
    /// A further `process` for the container of `spec`, whose init is `target_pid`. What `process`
    /// leaves open (capabilities, seccomp, no_new_privs) is taken from the container, never widened.
    pub fn new(
        spec: &Spec,
        process: &Process,
        target_pid: i32,
        cgroup: Option<PathBuf>,
    ) -> Result<ExecPlan, SpecErrors> {
        crate::spec::validate::exec_plan(spec, process, target_pid, cgroup)
    }

    /// Says which container it is, for whoever is told of the process (`seccomp.listenerPath`).
    pub fn name_container(&mut self, id: &str, bundle: &std::path::Path) {
        let filter = self.process.seccomp.as_mut();
        if let Some(listener) = filter.and_then(|filter| filter.listener.as_mut()) {
            listener.state["id"] = id.into();
            listener.state["bundle"] = bundle.to_string_lossy().into();
        }
    }
}
