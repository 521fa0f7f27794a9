//! The default profile (`RuntimeDefault`): what containerd, CRI-O and Docker allow a container of today.
//!
//! A list of allowed calls; everything else fails with EPERM, calls newer than the list with ENOSYS.
//! Some are allowed only to a container which has the capability that the kernel itself asks for.

use crate::capability::{self, CapabilitySet};
use crate::spec::config::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

/// Allowed to every container.
const ALWAYS: &str = include_str!("default.txt");

/// Allowed with a capability in the bounding set.
const WITH: [(&str, &str); 15] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    (
        "SYS_MODULE",
        "delete_module init_module finit_module query_module",
    ),
    ("SYS_PACCT", "acct"),
    (
        "SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    ),
    ("SYS_RAWIO", "iopl ioperm"),
    (
        "SYS_TIME",
        "settimeofday stime clock_settime clock_settime64",
    ),
    ("SYS_TTY_CONFIG", "vhangup"),
    (
        "SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
    ("CHECKPOINT_RESTORE", "kcmp"),
];

/// `CLONE_NEW*` for mount, cgroup, UTS, IPC, user, PID and network.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// `personality` values that change nothing which matters: default, Linux 32, both with UNAME26, query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `AF_VSOCK`: talks to the hypervisor past every network policy.
const AF_VSOCK: u64 = 40;

/// The default profile for a container with these capabilities in its bounding set.
pub fn default_profile(bounding: CapabilitySet) -> LinuxSeccomp {
    use LinuxSeccompOperator as Operator;
    let has = |name| capability::of_name(name).is_some_and(|one| bounding.has(one));
    let mut rules = vec![allow(ALWAYS)];
    for value in PERSONALITIES {
        rules.push(allow_where("personality", Operator::Eq, value, None));
    }
    rules.push(allow_where("socket", Operator::Ne, AF_VSOCK, None));
    for (capability, names) in WITH {
        if has(capability) {
            rules.push(allow(names));
        }
    }
    if !has("SYS_ADMIN") {
        let masked = Operator::MaskedEq;
        rules.push(allow_where("clone", masked, NEW_NAMESPACES, Some(0)));
        // Its flags lie in memory, where no filter sees them; ENOSYS makes libc use clone.
        rules.push(LinuxSyscall {
            names: vec!["clone3".into()],
            action: LinuxSeccompAction::Errno,
            errno_ret: Some(libc::ENOSYS as u32),
            args: Vec::new(),
        });
    }
    LinuxSeccomp {
        default_action: LinuxSeccompAction::Errno,
        default_errno_ret: Some(libc::EPERM as u32),
        architectures: vec![Arch::X86_64, Arch::X86, Arch::X32],
        syscalls: rules,
        ..LinuxSeccomp::default()
    }
}

fn allow(names: &str) -> LinuxSyscall {
    LinuxSyscall {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action: LinuxSeccompAction::Allow,
        errno_ret: None,
        args: Vec::new(),
    }
}

fn allow_where(
    name: &str,
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> LinuxSyscall {
    let condition = LinuxSeccompArg {
        index: 0,
        value,
        value_two,
        op,
    };
    LinuxSyscall {
        args: vec![condition],
        ..allow(name)
    }
}
