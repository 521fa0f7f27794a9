//! The default profile (`RuntimeDefault`): what containerd, CRI-O and Docker allow a container of today.
//!
//! A list of allowed calls; everything else fails with EPERM, calls newer than the list with ENOSYS.
//! Some are allowed only to a container which has the capability that the kernel itself asks for.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Allowed to every container.
const ALWAYS: &str = include_str!("default.txt");

/// Allowed with a capability in the bounding set.
const WITH: [(Capability, &str); 15] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (
        Capability::SysModule,
        "delete_module init_module finit_module query_module",
    ),
    (Capability::SysPacct, "acct"),
    (
        Capability::SysPtrace,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    ),
    (Capability::SysRawio, "iopl ioperm"),
    (
        Capability::SysTime,
        "settimeofday stime clock_settime clock_settime64",
    ),
    (Capability::SysTtyConfig, "vhangup"),
    (
        Capability::SysNice,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
    (Capability::CheckpointRestore, "kcmp"),
];

/// `CLONE_NEW*` for mount, cgroup, UTS, IPC, user, PID and network.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// `personality` values that change nothing which matters: default, Linux 32, both with UNAME26, query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `AF_VSOCK`: talks to the hypervisor past every network policy.
const AF_VSOCK: u64 = 40;

/// The default profile for a container with these capabilities in its bounding set.
pub fn default_profile(capabilities: &[Capability]) -> LinuxSeccomp {
    use LinuxSeccompOperator as Operator;
    let mut rules = vec![rule(
        ALWAYS.lines().flat_map(str::split_whitespace),
        LinuxSeccompAction::ScmpActAllow,
        None,
    )];
    for value in PERSONALITIES {
        rules.push(allow_where("personality", Operator::ScmpCmpEq, value, None));
    }
    rules.push(allow_where("socket", Operator::ScmpCmpNe, AF_VSOCK, None));
    for (capability, names) in WITH {
        if capabilities.contains(&capability) {
            rules.push(rule(
                names.split_whitespace(),
                LinuxSeccompAction::ScmpActAllow,
                None,
            ));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        rules.push(allow_where(
            "clone",
            Operator::ScmpCmpMaskedEq,
            NEW_NAMESPACES,
            Some(0),
        ));
        // Its flags lie in memory, where no filter sees them; ENOSYS makes libc use clone.
        let no_call = Some(libc::ENOSYS as u32);
        rules.push(rule(
            ["clone3"].into_iter(),
            LinuxSeccompAction::ScmpActErrno,
            no_call,
        ));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(vec![
            Arch::ScmpArchX86_64,
            Arch::ScmpArchX86,
            Arch::ScmpArchX32,
        ])
        .syscalls(rules)
        .build()
        .expect("every field has a default")
}

fn rule<'a>(
    names: impl Iterator<Item = &'a str>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
) -> LinuxSyscall {
    let names: Vec<String> = names.map(str::to_owned).collect();
    let mut rule = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        rule = rule.errno_ret(errno);
    }
    rule.build().expect("names and action are set")
}

fn allow_where(
    name: &str,
    operator: LinuxSeccompOperator,
    value: u64,
    datum: Option<u64>,
) -> LinuxSyscall {
    let mut condition = LinuxSeccompArgBuilder::default()
        .index(0usize)
        .value(value)
        .op(operator);
    if let Some(datum) = datum {
        condition = condition.value_two(datum);
    }
    let condition: LinuxSeccompArg = condition
        .build()
        .expect("index, value and operator are set");
    let allowed = LinuxSyscallBuilder::default().names(vec![name.to_owned()]);
    let allowed = allowed
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![condition]);
    allowed
        .build()
        .expect("names, action and arguments are set")
}
