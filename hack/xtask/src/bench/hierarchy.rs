//! One cgroup hierarchy for every side of a bench.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::mount_bind;

use super::host;

/// Where a host with cgroup v2 alone has it mounted.
pub const PLACE: &str = "/sys/fs/cgroup";

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
    host::private_mounts()?;
    mount_bind(&found, PLACE).with_context(|| format!("cannot mount cgroup2 on {PLACE}"))?;
    Ok("the host's cgroup2 alone, in a private mount namespace")
}

/// How many groups there are in all hierarchies.
pub fn groups() -> Result<usize> {
    Ok(roots()?.iter().map(|root| below(root).len()).sum())
}

/// Removes the group `name` and all below it, empty of processes, in every hierarchy.
pub fn remove(name: &str) -> Result<()> {
    for root in roots()? {
        let top = root.join(name);
        if !top.is_dir() {
            continue;
        }
        for group in below(&top).into_iter().chain([top]) {
            fs::remove_dir(&group).with_context(|| format!("cannot remove {}", group.display()))?;
        }
    }
    Ok(())
}

/// Where hierarchies of both versions are mounted.
fn roots() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let of_cgroups = fields.filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")));
    Ok(of_cgroups.map(|fields| fields[1].into()).collect())
}

/// The groups below `top`, the deepest first.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(below(&path));
            found.push(path);
        }
    }
    found
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
