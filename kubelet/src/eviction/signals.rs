//! Eviction signals: how much of what is left.

use std::io;
use std::path::Path;

/// What is left of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Bytes or inodes that can still be had.
    pub available: u64,
    /// All there is; 0 when the file system does not count (inodes of btrfs).
    pub capacity: u64,
}

/// Bytes and inodes of one file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsLeft {
    /// Bytes.
    pub bytes: Left,
    /// Inodes.
    pub inodes: Left,
}

/// One reading of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Memory.
    pub memory: Left,
    /// The file system of the kubelet's directory: volumes and logs.
    pub nodefs: FsLeft,
    /// The file system of images and containers' layers; `None` while CRI does not say.
    pub imagefs: Option<FsLeft>,
    /// Processes, threads counted one by one.
    pub pids: Left,
}

/// Reads a file system. Blocks kept for root are not counted at all, neither as capacity
/// nor as free: nothing the kubelet could delete would make them available.
///
/// # Errors
/// When the path is not there.
pub fn filesystem(path: &Path) -> io::Result<FsLeft> {
    let seen = rustix::fs::statvfs(path)?;
    let used = seen.f_blocks.saturating_sub(seen.f_bfree);
    let inodes_used = seen.f_files.saturating_sub(seen.f_ffree);
    Ok(FsLeft {
        bytes: Left {
            available: seen.f_bavail.saturating_mul(seen.f_frsize),
            capacity: (used + seen.f_bavail).saturating_mul(seen.f_frsize),
        },
        inodes: Left {
            available: seen.f_favail,
            capacity: match seen.f_files {
                0 => 0,
                _ => inodes_used + seen.f_favail,
            },
        },
    })
}

/// Memory of the whole machine. `MemAvailable` is what can be had without swapping, page
/// cache in use by nobody included (proc(5)); the stock kubelet counts active page cache
/// as used and evicts for it (kubernetes/kubernetes#43916).
///
/// # Errors
/// When /proc/meminfo cannot be read.
pub fn memory() -> io::Result<Left> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    Ok(parse_meminfo(&text))
}

/// Processes of the whole machine: the smaller of pid_max and threads-max is all there is,
/// the tasks that /proc/loadavg counts are taken (the stock kubelet's formula).
///
/// # Errors
/// When one of the files of /proc cannot be read.
pub fn pids() -> io::Result<Left> {
    let number = |path: &str| -> io::Result<u64> {
        let text = std::fs::read_to_string(path)?;
        text.trim().parse().map_err(io::Error::other)
    };
    let most = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(Left {
        available: most.saturating_sub(parse_loadavg(&load)),
        capacity: most,
    })
}

/// The number of tasks behind the slash of proc_loadavg(5).
fn parse_loadavg(text: &str) -> u64 {
    let tasks = text.split_whitespace().nth(3);
    let total = tasks.and_then(|tasks| tasks.split_once('/')?.1.parse().ok());
    total.unwrap_or_default()
}

fn parse_meminfo(text: &str) -> Left {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default().saturating_mul(1024)
    };
    Left {
        available: field("MemAvailable:"),
        capacity: field("MemTotal:"),
    }
}

/// Bytes below a directory, on its file system only, links not followed. A file with
/// several names counts once a name.
pub fn used_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(root) = dir.symlink_metadata() else {
        return 0;
    };
    let mut total = 0;
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(seen) = entry.metadata() else { continue };
            if seen.dev() != root.dev() {
                continue;
            }
            total += seen.blocks() * 512;
            if seen.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_can_be_read() {
        let here = filesystem(Path::new("/")).unwrap();
        assert!(here.bytes.available <= here.bytes.capacity && here.bytes.capacity > 0);
        let memory = memory().unwrap();
        assert!(memory.available <= memory.capacity && memory.available > 0);
        let pids = pids().unwrap();
        assert!(pids.available < pids.capacity && pids.available > 0);
        assert_eq!(parse_loadavg("0.1 0.2 0.3 2/345 6789\n"), 345);
        let text = "MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   40 kB\n";
        let left = parse_meminfo(text);
        assert_eq!((left.available, left.capacity), (40 * 1024, 100 * 1024));
    }

    #[test]
    fn use_is_summed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let before = used_below(dir.path());
        std::fs::write(dir.path().join("a/f"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("l")).unwrap();
        let more = used_below(dir.path()) - before;
        assert!((98_304..200_000).contains(&more), "{more}");
        assert_eq!(used_below(&dir.path().join("none")), 0);
    }
}
