//! Named faults for tests: the plan that is carried out differs from the one that is verified, as if
//! a step had done nothing or something else. The record must notice every one.

/// Names the fault, in builds for tests.
pub const VARIABLE: &str = "BERTH_FAULT";

/// Faults of any process, each with the field that must be named in the refusal.
pub const OF_PROCESSES: [(&str, &str); 18] = [
    (
        "a capability stays in the bounding set",
        "capabilities.bounding",
    ),
    ("a capability is inheritable", "capabilities.inheritable"),
    ("the ambient set is empty", "capabilities.ambient"),
    ("no_new_privs is not set", "no_new_privs"),
    ("no filter is loaded", "seccomp.mode"),
    ("another filter is loaded", "seccomp.filters"),
    ("another user", "uids"),
    ("another group", "gids"),
    ("a group more", "groups"),
    ("a resource limit is not set", "rlimits.RLIMIT_NOFILE"),
    ("the OOM score is not set", "oom_score_adj"),
    ("another umask", "umask"),
    ("a descriptor leaks", "descriptors"),
    ("another working directory", "cwd"),
    ("a variable more", "environment"),
    ("another value of a variable", "environment"),
    ("a variable less", "environment"),
    ("another program", "executable"),
];

/// Faults of containers only.
pub const OF_CONTAINERS: [(&str, &str); 19] = [
    ("the net namespace is shared", "namespaces.net"),
    ("the ipc namespace is shared", "namespaces.ipc"),
    ("the uts namespace is shared", "namespaces.uts"),
    ("the pid namespace is shared", "namespaces.pid"),
    ("the cgroup namespace is shared", "namespaces.cgroup"),
    ("a mount lost its flags", "mounts./etc.flags"),
    ("a mount shows something else", "mounts./etc.source"),
    ("a mount is shared", "mounts./etc.propagation"),
    ("a mount has another type", "mounts./sys.type"),
    ("a mount is missing", "mounts./sys"),
    ("a mount more", "mounts./tmp"),
    ("the root can be written", "mounts./.flags"),
    ("a path is not masked", "masked_paths./proc/keys"),
    ("a path can be written", "readonly_paths./proc/sys"),
    ("a parameter is not set", "sysctls.kernel/shmmni"),
    ("another cgroup", "cgroup"),
    ("all devices are allowed", "device_rules"),
    ("other devices are allowed", "device_rules"),
    ("a limit is not written", "limits.pids.max"),
];

/// Faults of containers with a user namespace of their own.
pub const OF_USERS: [(&str, &str); 3] = [
    ("an id more is mapped", "id_maps"),
    ("other group ids are mapped", "id_maps"),
    ("the user namespace is shared", "namespaces.user"),
];

/// Faults of containers with an AppArmor profile.
pub const OF_LABELS: [(&str, &str); 1] = [("no profile is entered", "lsm_label")];

/// Defences that can be left out, which no record would tell: `tests/cve` demands that an attack
/// comes through then.
pub mod defence {
    /// Processes of the container may look into ours (CVE-2016-9962).
    pub const PROCESSES: &str = "processes can be looked into";
    /// No keyring is made.
    pub const KEYRING: &str = "the session keyring is inherited";
    /// No mount is read-only.
    pub const MOUNTS: &str = "every mount can be written";
    /// The folder that the runtime is called in stays open until the program runs, and the working
    /// directory is entered by its name alone (CVE-2024-21626).
    pub const DIRECTORY: &str = "the working directory is any";
    /// The runtime runs from its own file (CVE-2019-5736).
    pub const PROGRAM: &str = "the program can be written";
    /// The folder of a mount is made and opened as the host's names lead to it (CVE-2021-30465).
    pub const TARGETS: &str = "mount targets are followed";
    /// The terminal goes to where `/dev/console` leads (CVE-2025-52565).
    pub const CONSOLE: &str = "the console is followed";
    /// CAP_SYS_ADMIN is kept whatever was asked for.
    pub const ADMIN: &str = "CAP_SYS_ADMIN is kept";
    /// A variable beyond 64 KiB writes over what comes after it: no network namespace is asked for any
    /// more (what CVE-2021-43784 did).
    pub const LENGTHS: &str = "lengths have 16 bits";
    /// `checkpoint` and `restore` answer as if they had done something.
    pub const RESTORE: &str = "restore is taken";
    /// The image is asked how users are looked up (what CVE-2019-14271 did).
    pub const NAMES: &str = "the image's name service is asked";
}

/// Whether this fault is asked for: never in a build that is no test's.
pub fn is(name: &str) -> bool {
    cfg!(feature = "test-util") && std::env::var_os(VARIABLE).is_some_and(|asked| asked == name)
}

#[cfg(feature = "test-util")]
pub(crate) use distortion::{container, followed, further, leave_directory_open};

#[cfg(feature = "test-util")]
mod distortion {
    use std::ffi::CString;
    use std::io;
    use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
    use std::path::{Path, PathBuf};

    use berth_sys::mount::{Propagation, attr};
    use berth_sys::ns::NamespaceKind;
    use berth_sys::seccomp::Instruction;
    use rustix::fs::{Mode, OFlags};

    use super::{VARIABLE, defence};
    use crate::capability::SYS_ADMIN;
    use crate::plan::{ExecPlan, MountSource, Plan, ProcessPlan};

    fn asked() -> Option<String> {
        std::env::var(VARIABLE).ok()
    }

    /// The plan as the fault that is asked for has it.
    pub(crate) fn container(plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        if let Some(name) = asked() {
            process(&mut plan.process, &name);
            namespaces(&mut plan, &name);
            mounts(&mut plan, &name);
            limits(&mut plan, &name);
        }
        plan
    }

    /// The same for a further process.
    pub(crate) fn further(plan: &ExecPlan) -> ExecPlan {
        let mut plan = plan.clone();
        if let Some(name) = asked() {
            process(&mut plan.process, &name);
        }
        plan
    }

    /// Leaves the folder open that the runtime is in, up to execve; not without [`defence::DIRECTORY`].
    pub(crate) fn leave_directory_open() {
        if super::is(defence::DIRECTORY) {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let here = rustix::fs::open(".", flags, Mode::empty());
            let _ = here.map(IntoRawFd::into_raw_fd);
        }
    }

    /// Makes and opens a folder below `root`, links followed to wherever the host has them; none
    /// without [`defence::TARGETS`].
    pub(crate) fn followed(root: impl AsFd, path: &Path) -> Option<io::Result<OwnedFd>> {
        if !super::is(defence::TARGETS) {
            return None;
        }
        let path = path.strip_prefix("/").unwrap_or(path);
        let mut folder = PathBuf::new();
        for name in path {
            folder.push(name);
            // whether it is there shows below
            let _ = rustix::fs::mkdirat(&root, &folder, Mode::from_raw_mode(0o755));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Some(rustix::fs::openat(root, path, flags, Mode::empty()).map_err(io::Error::from))
    }

    fn process(plan: &mut ProcessPlan, name: &str) {
        let capabilities = &mut plan.capabilities;
        match name {
            "a capability stays in the bounding set" => capabilities.bounding |= SYS_ADMIN,
            "a capability is inheritable" => capabilities.inheritable |= 1,
            "the ambient set is empty" => capabilities.ambient = 0,
            "no_new_privs is not set" => plan.no_new_privs = false,
            "no filter is loaded" => plan.seccomp = None,
            "another filter is loaded" => {
                if let Some(filter) = &mut plan.seccomp {
                    let allow = 0x7fff_0000; // SECCOMP_RET_ALLOW
                    filter.program = vec![Instruction {
                        code: 6,
                        jt: 0,
                        jf: 0,
                        k: allow,
                    }];
                }
            }
            "another user" => plan.uid += 1,
            "another group" => plan.gid += 1,
            "a group more" => plan.groups.push(6),
            "a resource limit is not set" => plan.rlimits.clear(),
            defence::KEYRING => plan.new_keyring = false,
            defence::ADMIN => {
                for set in [
                    &mut capabilities.bounding,
                    &mut capabilities.permitted,
                    &mut capabilities.effective,
                ] {
                    *set |= SYS_ADMIN;
                }
            }
            "the OOM score is not set" => plan.oom_score_adj = None,
            "another umask" => plan.umask = 0,
            "a descriptor leaks" => plan.preserve_fds = leak(),
            "another working directory" => plan.cwd = "/".into(),
            "a variable more" => plan.env.push(c"LD_PRELOAD=/x".to_owned()),
            "a variable less" => drop(plan.env.pop()),
            "another value of a variable" => {
                for entry in &mut plan.env {
                    if entry.to_bytes() == b"A=1" {
                        *entry = CString::from(c"A=2");
                    }
                }
            }
            "no profile is entered" => plan.apparmor = None,
            "another program" => {
                if let Some(program) = plan.args.first_mut() {
                    *program = CString::from(c"/bin/other");
                }
            }
            _ => {}
        }
    }

    fn namespaces(plan: &mut Plan, name: &str) {
        let shared = NamespaceKind::ALL
            .into_iter()
            .find(|kind| name == format!("the {} namespace is shared", kind.proc_name()));
        if let Some(shared) = shared {
            plan.namespaces.create.retain(|kind| *kind != shared);
            // They would be the host's.
            plan.sysctls.clear();
            plan.hostname = None;
            plan.domainname = None;
        }
        let ids = &mut plan.namespaces.ids;
        match name {
            defence::LENGTHS if plan.process.env.iter().any(is_long) => {
                let created = &mut plan.namespaces.create;
                created.retain(|kind| *kind != NamespaceKind::Net);
            }
            "a parameter is not set" => plan.sysctls.clear(),
            "an id more is mapped" => ids.uids.iter_mut().for_each(|map| map.length += 1),
            "other group ids are mapped" => ids.gids.iter_mut().for_each(|map| map.outside += 1),
            _ => {}
        }
    }

    fn mounts(plan: &mut Plan, name: &str) {
        let rootfs = &mut plan.rootfs;
        for mount in &mut rootfs.mounts {
            let is = |target: &str| mount.target.as_os_str() == target;
            match name {
                defence::MOUNTS => mount.attributes.set &= !attr::RDONLY,
                "a mount lost its flags" if is("/etc") => mount.attributes.set &= !attr::RDONLY,
                "a mount is shared" if is("/etc") => {
                    mount.propagation.push((Propagation::Shared, false));
                }
                "a mount shows something else" if is("/etc") => {
                    if let MountSource::Bind { path, .. } = &mut mount.source {
                        *path = "/usr".into();
                    }
                }
                "a mount has another type" if is("/sys") => {
                    if let MountSource::FileSystem { kind, .. } = &mut mount.source {
                        *kind = "tmpfs".into();
                    }
                }
                _ => {}
            }
        }
        match name {
            "a mount is missing" => rootfs
                .mounts
                .retain(|mount| mount.target.as_os_str() != "/sys"),
            "a mount more" => {
                let tmpfs = rootfs
                    .mounts
                    .iter()
                    .find(|mount| mount.target.as_os_str() == "/dev");
                if let Some(mut mount) = tmpfs.cloned() {
                    mount.target = "/tmp".into();
                    rootfs.mounts.push(mount);
                }
            }
            "the root can be written" => rootfs.readonly = false,
            "a path is not masked" => rootfs.masked.retain(|path| !path.ends_with("keys")),
            "a path can be written" => rootfs.readonly_paths.retain(|path| !path.ends_with("sys")),
            _ => {}
        }
    }

    fn limits(plan: &mut Plan, name: &str) {
        let resources = &mut plan.cgroup.resources;
        match name {
            "another cgroup" => plan.cgroup.path.push("other"),
            "all devices are allowed" => resources.devices.clear(),
            "other devices are allowed" => {
                resources.devices.pop();
            }
            "a limit is not written" => resources.pids = None,
            _ => {}
        }
    }

    fn is_long(entry: &CString) -> bool {
        entry.count_bytes() > usize::from(u16::MAX)
    }

    /// Leaves a descriptor open over execve; returns how many have to be preserved for it to get through.
    fn leak() -> u32 {
        let copy =
            rustix::io::dup(rustix::stdio::stdin()).expect("the table of descriptors has room");
        u32::try_from(copy.into_raw_fd() - 2).expect("the standard streams are open")
    }
}
