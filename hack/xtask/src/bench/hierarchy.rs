//! One cgroup hierarchy for every side of a bench.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_sys::ns::{self, NamespaceKind};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

/// Where a host with cgroup v2 alone has it mounted.
const PLACE: &str = "/sys/fs/cgroup";

/// Shows this process, and all it starts from now on, cgroup v2 alone; says what it did.
///
/// Runtimes do different work on a host that has v1 and v2: berth uses v2, runc makes a group
/// in each v1 hierarchy, crun refuses the host. In a private mount namespace with the cgroup2
/// file system in the usual place all make one group of v2. The host's mounts stay as they are.
///
/// Call it from the main thread before there is another one.
pub fn unify() -> Result<&'static str> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let Some(found) = cgroup2_mount(&mounts) else {
        return Ok("the host has no cgroup2");
    };
    if found == Path::new(PLACE) {
        return Ok("the host's cgroup2");
    }
    ns::unshare(NamespaceKind::Mount.flag()).context("cannot make a mount namespace")?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .context("cannot make the mounts private")?;
    mount_bind(&found, PLACE).with_context(|| format!("cannot mount cgroup2 on {PLACE}"))?;
    Ok("the host's cgroup2 alone, in a private mount namespace")
}

fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| place.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_cgroup2_of_a_hybrid_host() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = cgroup2_mount(mounts);
        assert_eq!(found, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount("tmpfs /tmp tmpfs rw 0 0\n"), None);
    }
}
