//! The leak check: what the host holds before a test must be what it holds after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long effects may take to vanish: links go when the kernel has freed their namespace.
const SETTLE: Duration = Duration::from_secs(5);

/// Where berth's own files lie.
#[derive(Debug, Clone)]
pub struct Places {
    /// Live state, `/run/berth`.
    pub run: PathBuf,
    /// Address leases of host-local, below `/var/lib/berth/cni`.
    pub leases: PathBuf,
    /// The daemon whose open files are counted, if one runs through the test.
    pub daemon: Option<u32>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            run: "/run/berth".into(),
            leases: "/var/lib/berth/cni".into(),
            daemon: None,
        }
    }
}

/// A part of the host that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file or folder of `/proc`, `/sys` or berth's own.
    #[error("cannot read {path}")]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `nft` itself failed; that it is absent means there is no rule of ours.
    #[error("cannot list the nftables ruleset: {stderr}")]
    Rules {
        /// What it printed.
        stderr: String,
    },
}

/// One thing that is there after and was not before, or the reverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// Mounts, links, …
    pub kind: &'static str,
    /// The thing itself.
    pub what: String,
    /// It was there before and is not any more.
    pub lost: bool,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.lost { "lost" } else { "left behind" };
        write!(f, "{verb}: {} {}", self.kind, self.what)
    }
}

/// What the host holds at one moment, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    kinds: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Snapshot {
    /// Reads mounts, network namespaces, links, nftables rules, cgroups, berth's
    /// processes, run files and address leases.
    pub fn take(places: &Places) -> Result<Self, SnapshotError> {
        let mut kinds = BTreeMap::from([
            ("mount", mounts()?),
            ("network namespace", network_namespaces()?),
            ("link", names_in(Path::new("/sys/class/net"))?),
            ("nftables rule", rules()?),
            ("cgroup", cgroups()?),
            ("process", processes()?),
            ("run file", tree(&places.run)?),
            ("lease", tree(&places.leases)?),
        ]);
        if let Some(pid) = places.daemon {
            kinds.insert("open file", open_files(pid)?);
        }
        Ok(Self { kinds })
    }

    /// What differs between this moment and a later one.
    pub fn difference(&self, later: &Self) -> Vec<Leak> {
        let empty = BTreeSet::new();
        let mut leaks = Vec::new();
        for (kind, before) in &self.kinds {
            let after = later.kinds.get(kind).unwrap_or(&empty);
            for what in after.difference(before) {
                leaks.push(Leak {
                    kind,
                    what: what.clone(),
                    lost: false,
                });
            }
            for what in before.difference(after) {
                if is_own_leftover(kind, what) {
                    continue;
                }
                leaks.push(Leak {
                    kind,
                    what: what.clone(),
                    lost: true,
                });
            }
        }
        leaks
    }

    /// Polls for up to five seconds until nothing differs; returns what still does.
    pub fn leaks(&self, places: &Places) -> Result<Vec<Leak>, SnapshotError> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let leaks = self.difference(&Self::take(places)?);
            if leaks.is_empty() || Instant::now() >= deadline {
                return Ok(leaks);
            }
            sleep(Duration::from_millis(50));
        }
    }
}

/// What an earlier run of berth left and is gone now is no effect on the host: a process
/// of ours that ended, an empty cgroup under our own names that was tidied away.
fn is_own_leftover(kind: &str, what: &str) -> bool {
    kind == "process"
        || (kind == "cgroup"
            && what
                .split('/')
                .any(|name| matches!(name, "berth" | "kubepods")))
}

/// Where the cgroup2 file system is mounted, if it is.
pub(crate) fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut lines = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find_map(|f| (f.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(f[1])))
}

/// Target and file system of every mount in this mount namespace (proc_pid_mountinfo(5)).
fn mounts() -> Result<BTreeSet<String>, SnapshotError> {
    let text = read(Path::new("/proc/self/mountinfo"))?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines() {
        let target = line.split(' ').nth(4).unwrap_or_default();
        let kind = line
            .split(" - ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        *seen
            .entry(format!("{target} ({})", kind.unwrap_or_default()))
            .or_default() += 1;
    }
    // several mounts may be stacked on one target
    Ok(seen
        .into_iter()
        .map(|(mount, times)| format!("{mount} x{times}"))
        .collect())
}

/// Names below /run/netns, and the inode of every process's namespace.
fn network_namespaces() -> Result<BTreeSet<String>, SnapshotError> {
    let mut namespaces = names_in(Path::new("/run/netns"))?;
    for pid in pids()? {
        // a process that has just ended has none
        if let Ok(link) = fs::read_link(format!("/proc/{pid}/ns/net")) {
            namespaces.insert(link.display().to_string());
        }
    }
    Ok(namespaces)
}

fn rules() -> Result<BTreeSet<String>, SnapshotError> {
    let listing = Command::new("nft")
        .args(["--stateless", "list", "ruleset"])
        .output();
    let output = match listing {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(source) => {
            return Err(SnapshotError::Read {
                path: "nft".into(),
                source,
            });
        }
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(SnapshotError::Rules { stderr });
    }
    let mut rules = BTreeSet::new();
    let mut table = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {").to_owned();
        }
        rules.insert(format!("{table}: {}", line.trim()));
    }
    Ok(rules)
}

fn cgroups() -> Result<BTreeSet<String>, SnapshotError> {
    let mut found = BTreeSet::new();
    let mut open: Vec<PathBuf> = cgroup2_mount().into_iter().collect();
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(entry.path().display().to_string());
                open.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Every process that runs one of berth's programs.
fn processes() -> Result<BTreeSet<String>, SnapshotError> {
    let mut found = BTreeSet::new();
    for pid in pids()? {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = name.trim();
        let ours = [
            "berth",
            "berth-oci",
            "berth-monitor",
            "berth-pause",
            "berth-cni",
        ];
        if ours.contains(&name) {
            found.insert(format!("{name} {pid}"));
        }
    }
    Ok(found)
}

fn open_files(pid: u32) -> Result<BTreeSet<String>, SnapshotError> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for name in names_in(&folder)? {
        if let Ok(target) = fs::read_link(folder.join(name)) {
            // sockets and pipes come and go under new numbers
            let target = target.display().to_string();
            let kind = target.split(":[").next().unwrap_or_default().to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
    }
    Ok(kinds
        .into_iter()
        .map(|(kind, count)| format!("{kind} x{count}"))
        .collect())
}

fn tree(root: &Path) -> Result<BTreeSet<String>, SnapshotError> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found.insert(entry.path().display().to_string());
            }
        }
    }
    Ok(found)
}

fn pids() -> Result<Vec<u32>, SnapshotError> {
    let names = names_in(Path::new("/proc"))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The names in a folder; none where it does not exist.
fn names_in(folder: &Path) -> Result<BTreeSet<String>, SnapshotError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(source) => Err(SnapshotError::Read {
            path: folder.into(),
            source,
        }),
    }
}

fn read(path: &Path) -> Result<String, SnapshotError> {
    fs::read_to_string(path).map_err(|source| SnapshotError::Read {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_came_and_what_went() {
        let snapshot = |links: &[&str]| Snapshot {
            kinds: BTreeMap::from([("link", links.iter().map(|l| (*l).to_owned()).collect())]),
        };
        let leaks = snapshot(&["lo", "eth0"]).difference(&snapshot(&["lo", "veth1"]));
        let lines: Vec<String> = leaks.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["left behind: link veth1", "lost: link eth0"]);
    }

    #[test]
    fn what_an_earlier_run_left_may_go() {
        assert!(is_own_leftover("process", "berth-oci 17"));
        assert!(is_own_leftover(
            "cgroup",
            "/sys/fs/cgroup/kubepods/burstable"
        ));
        assert!(!is_own_leftover("cgroup", "/sys/fs/cgroup/system.slice"));
        assert!(!is_own_leftover("link", "berth0"));
    }
}
