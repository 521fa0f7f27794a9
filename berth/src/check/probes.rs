//! The probes themselves; each reads, none changes the machine.

use std::path::Path;
use std::process::Command;

use super::{Outcome, Probe};

/// Every probe, in the order in which a start would need it.
pub const ALL: &[Probe] = &[
    Probe {
        name: "root",
        look: root,
    },
    Probe {
        name: "kernel",
        look: kernel,
    },
    Probe {
        name: "namespaces",
        look: namespaces,
    },
    Probe {
        name: "overlayfs",
        look: overlay,
    },
    Probe {
        name: "cgroup v2",
        look: cgroup,
    },
    Probe {
        name: "seccomp",
        look: seccomp,
    },
    Probe {
        name: "nftables",
        look: nftables,
    },
    Probe {
        name: "bridge and veth",
        look: links,
    },
    Probe {
        name: "forwarding not blocked",
        look: forwarding,
    },
    Probe {
        name: "CAP_SYS_RESOURCE",
        look: sys_resource,
    },
    Probe {
        name: "CAP_SYS_PTRACE",
        look: sys_ptrace,
    },
    Probe {
        name: "/proc/sys writable",
        look: proc_sys,
    },
    Probe {
        name: "AppArmor",
        look: apparmor,
    },
    Probe {
        name: "inotify",
        look: inotify,
    },
    Probe {
        name: "audit log",
        look: audit_log,
    },
    Probe {
        name: "programs",
        look: programs,
    },
];

fn ok(found: impl Into<String>) -> Outcome {
    Outcome::Ok(found.into())
}

fn degraded(found: impl Into<String>, remedy: impl Into<String>) -> Outcome {
    Outcome::Degraded {
        found: found.into(),
        remedy: remedy.into(),
    }
}

fn missing(found: impl Into<String>, remedy: impl Into<String>) -> Outcome {
    Outcome::Missing {
        found: found.into(),
        remedy: remedy.into(),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn root() -> Outcome {
    if rustix::process::geteuid().is_root() {
        ok("uid 0")
    } else {
        missing("not root", "run as root (sudo berth …)")
    }
}

fn kernel() -> Outcome {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release
        .split(['.', '-'])
        .filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        v if v >= (6, 5) => ok(release),
        v if v >= (5, 19) => ok(format!(
            "{release}: overlay layers are mounted the older way"
        )),
        v if v >= (5, 15) => degraded(
            format!("{release}: no idmapped overlay layers"),
            "pods with hostUsers: false need kernel 5.19 or newer",
        ),
        _ => missing(release, "install kernel 5.15 or newer"),
    }
}

fn namespaces() -> Outcome {
    let absent: Vec<&str> = ["mnt", "uts", "ipc", "net", "pid", "cgroup", "user"]
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    if absent.is_empty() {
        return ok("mount, uts, ipc, net, pid, cgroup, user");
    }
    missing(
        format!("not in this kernel: {}", absent.join(", ")),
        "use a kernel built with CONFIG_NAMESPACES and each of CONFIG_{UTS,IPC,NET,PID,USER}_NS",
    )
}

fn overlay() -> Outcome {
    if read("/proc/filesystems")
        .lines()
        .any(|line| line.ends_with("overlay"))
    {
        return ok("in the kernel");
    }
    missing(
        "the kernel lists no overlay file system",
        "modprobe overlay",
    )
}

fn cgroup() -> Outcome {
    let mounts = read("/proc/self/mounts");
    let mounted = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(ToString::to_string));
    let Some(mount) = mounted else {
        return missing(
            "cgroup2 is not mounted",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        );
    };
    let held = read(&format!("{mount}/cgroup.controllers"));
    let absent: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !held.split(' ').any(|c| c == *wanted))
        .collect();
    if absent.is_empty() {
        return ok(format!("{mount}: {held}"));
    }
    degraded(
        format!(
            "{mount} lacks {}: those limits are not enforced, OOM kills are not reported",
            absent.join(", ")
        ),
        "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all; until then start with --allow-degraded-cgroups",
    )
}

fn seccomp() -> Outcome {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    if actions.contains("errno") {
        return ok(actions);
    }
    missing(
        "no seccomp filters",
        "use a kernel built with CONFIG_SECCOMP_FILTER",
    )
}

fn nftables() -> Outcome {
    match Command::new("nft").args(["list", "tables"]).output() {
        Err(error) => missing(
            format!("cannot run nft: {error}"),
            "apt-get install nftables",
        ),
        Ok(output) if output.status.success() => ok("nft answers"),
        Ok(output) => missing(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            "modprobe nf_tables; in a container, add CAP_NET_ADMIN",
        ),
    }
}

fn links() -> Outcome {
    let modules = read("/proc/modules");
    let release = read("/proc/sys/kernel/osrelease");
    let builtin = read(&format!("/lib/modules/{release}/modules.builtin"));
    let known = |name: &str| {
        modules
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")))
            || builtin.contains(&format!("/{name}.ko"))
            || Path::new("/sys/module").join(name).exists()
            || std::fs::exists(format!("/lib/modules/{release}/kernel/net/{name}")).unwrap_or(false)
    };
    if known("bridge") {
        return ok("in the kernel or loadable");
    }
    // Absent module lists say nothing: containers and images without /lib/modules have none.
    ok("not listed; the first pod's network will tell")
}

fn forwarding() -> Outcome {
    let Ok(output) = Command::new("nft").args(["-j", "list", "chains"]).output() else {
        return ok("not looked at: no nft");
    };
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let blocks = listing["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|object| {
            let chain = object.get("chain")?;
            let drops = chain["hook"] == "forward" && chain["policy"] == "drop";
            drops.then(|| {
                format!("{} {} {}", chain["family"], chain["table"], chain["name"]).replace('"', "")
            })
        });
    match blocks {
        None => ok("no chain drops by policy"),
        Some(chain) => degraded(
            format!(
                "chain `{chain}` drops forwarded packets: pods reach neither each other nor the outside"
            ),
            "accept packets from and to berth0 in that chain, e.g. iptables -I FORWARD -i berth0 -j ACCEPT; iptables -I FORWARD -o berth0 -j ACCEPT",
        ),
    }
}

fn has_capability(number: u32) -> bool {
    let status = read("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|bits| bits & (1 << number) != 0)
}

fn sys_resource() -> Outcome {
    if has_capability(24) {
        return ok("held");
    }
    degraded(
        "not held: oom_score_adj below the present one and rlimits above the hard limit are left as they are",
        "give this process CAP_SYS_RESOURCE",
    )
}

fn sys_ptrace() -> Outcome {
    if has_capability(19) {
        return ok("held");
    }
    degraded(
        "not held: other users' processes cannot be inspected",
        "give this process CAP_SYS_PTRACE",
    )
}

fn proc_sys() -> Outcome {
    let writable = rustix::fs::access(
        "/proc/sys/net/ipv4/ip_forward",
        rustix::fs::Access::WRITE_OK,
    )
    .is_ok();
    let on = read("/proc/sys/net/ipv4/ip_forward") == "1";
    match (writable, on) {
        (true, _) => ok("net.ipv4.ip_forward can be set"),
        (false, true) => ok("read-only, and net.ipv4.ip_forward is 1 already"),
        (false, false) => missing(
            "read-only, and net.ipv4.ip_forward is 0",
            "sysctl -w net.ipv4.ip_forward=1 on the host",
        ),
    }
}

fn apparmor() -> Outcome {
    if read("/sys/module/apparmor/parameters/enabled") == "Y" {
        return ok("enabled");
    }
    degraded(
        "not enabled: pods that ask for a profile are refused",
        "boot with apparmor=1 security=apparmor",
    )
}

fn inotify() -> Outcome {
    let instances: u32 = read("/proc/sys/fs/inotify/max_user_instances")
        .parse()
        .unwrap_or(0);
    if instances >= 128 {
        return ok(format!("{instances} instances a user"));
    }
    degraded(
        format!("{instances} instances a user: many node containers on one host run out"),
        "sysctl -w fs.inotify.max_user_instances=1024",
    )
}

/// Least space that the audit log's file system should have left, in MiB: its default size.
const AUDIT_MIB: u64 = 256;

/// Looks at the default place; what `cri.audit.dir` names is seen at the start.
fn audit_log() -> Outcome {
    let dir = Path::new("/var/log/berth/audit");
    let existing = dir.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let remedy = "make it a folder on a writable file system, or set cri.audit.dir";
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok();
    if !existing.is_dir() || !writable {
        let found = format!(
            "`{}` cannot be written: no container would be started",
            existing.display()
        );
        return missing(found, remedy);
    }
    let free = rustix::fs::statvfs(existing).map_or(0, |found| {
        found.f_bavail.saturating_mul(found.f_frsize) >> 20
    });
    if free < AUDIT_MIB {
        return degraded(
            format!("{free} MiB left for {}", dir.display()),
            "free space there, or set cri.audit.max_files: a full log refuses starts",
        );
    }
    ok(format!("{}, {free} MiB left", dir.display()))
}

fn programs() -> Outcome {
    let dir = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.to_owned()));
    let Some(dir) = dir else {
        return missing("cannot tell where this program lies", "mount /proc");
    };
    let absent: Vec<&str> = ["berth-monitor", "berth-pause"]
        .into_iter()
        .filter(|name| !dir.join(name).is_file())
        .collect();
    if absent.is_empty() {
        return ok(dir.display().to_string());
    }
    missing(
        format!("{} lacks {}", dir.display(), absent.join(", ")),
        "install the five programs of berth into one folder",
    )
}
