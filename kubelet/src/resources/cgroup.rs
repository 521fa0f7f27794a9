//! The cgroups of pods: `kubepods[/burstable|/besteffort]/pod<UID>`, made and limited here,
//! handed to the CRI server as `cgroup_parent`.
//!
//! Invariant: no process sits in a pod's cgroup itself (cgroups(7), "no internal
//! processes"); the CRI server puts them into children.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use rustix::io::Errno;

use super::qos::{self, CPU_PERIOD, QosClass};
use crate::config::CgroupConfig;
use crate::pod::{PodUid, uid};

/// Controllers whose limits pods ask for.
const WANTED: &[&str] = &["cpu", "cpuset", "memory", "pids", "hugetlb", "io"];
/// Controllers without which limits are not enforced.
const NEEDED: &[&str] = &["cpu", "memory", "pids"];
/// Leaf for the kubelet's own processes, so that controllers can be delegated beside it.
const OWN_LEAF: &str = "berth-agent";

/// A cheap handle on the tree of pod cgroups.
#[derive(Debug, Clone)]
pub struct PodCgroups {
    mount: PathBuf,
    /// Path of `kubepods` below the mount, with a leading slash.
    base: PathBuf,
    missing: Vec<&'static str>,
}

/// Why the cgroups could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 file system is mounted.
    #[error("no cgroup2 file system is mounted: mount one at /sys/fs/cgroup")]
    NotMounted,
    /// Controllers are missing and that was not allowed.
    #[error(
        "cgroup v2 has no {} controller here, so limits would not be enforced: boot with \
         cgroup_no_v1=all, or allow degraded cgroups", missing.join(", ")
    )]
    NoControllers { missing: Vec<&'static str> },
    /// One step on one path.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| CgroupError::Io { step, path, source }
}

impl PodCgroups {
    /// Finds the cgroup2 mount, makes `kubepods` and its two class cgroups and delegates
    /// the controllers to them.
    ///
    /// # Errors
    /// When there is no cgroup2, or it lacks controllers and that was not allowed.
    pub fn prepare(config: &CgroupConfig, memory_limit: i64) -> Result<PodCgroups, CgroupError> {
        let mount = find_mount().ok_or(CgroupError::NotMounted)?;
        let available = controllers(&mount);
        let missing: Vec<_> = NEEDED
            .iter()
            .copied()
            .filter(|c| !available.contains(*c))
            .collect();
        if !missing.is_empty() && !config.allow_degraded {
            return Err(CgroupError::NoControllers { missing });
        }
        let parent = match &config.root {
            Some(root) => Path::new("/").join(root),
            None => place(&mount, &own_cgroup(), missing.is_empty())?,
        };
        let base = parent.join("kubepods");
        let cgroups = PodCgroups {
            mount,
            base,
            missing,
        };
        for class in ["", "burstable", "besteffort"] {
            cgroups.make(&cgroups.base.join(class))?;
        }
        if memory_limit > 0 {
            cgroups.write(
                &cgroups.base.clone(),
                "memory.max",
                &memory_limit.to_string(),
            )?;
        }
        cgroups.write(&cgroups.base.join("besteffort"), "cpu.weight", "1")?;
        Ok(cgroups)
    }

    /// Controllers that are missing, so that their limits are not enforced.
    #[must_use]
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// Directory of the whole pods' tree.
    #[must_use]
    pub fn base_dir(&self) -> PathBuf {
        self.dir(&self.base)
    }

    /// Directory of one pod's cgroup.
    #[must_use]
    pub fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.dir(&self.pod_path(pod))
    }

    /// The pod's cgroup as CRI wants it: a path below the cgroup2 mount.
    #[must_use]
    pub fn parent_of(&self, pod: &Pod) -> String {
        self.pod_path(pod).to_string_lossy().into_owned()
    }

    fn pod_path(&self, pod: &Pod) -> PathBuf {
        let class = match QosClass::of(pod) {
            QosClass::Guaranteed => "",
            QosClass::Burstable => "burstable",
            QosClass::BestEffort => "besteffort",
        };
        self.base.join(class).join(format!("pod{}", uid(pod)))
    }

    /// Makes and limits the pod's cgroup; idempotent.
    ///
    /// # Errors
    /// When it cannot be made or a limit that the kernel has cannot be written.
    pub fn ensure(&self, pod: &Pod) -> Result<(), CgroupError> {
        let path = self.pod_path(pod);
        self.make(&path)?;
        let shares = qos::cpu_shares(qos::pod_request(pod, "cpu"));
        self.write(&path, "cpu.weight", &qos::cpu_weight(shares).to_string())?;
        let cpu = match qos::pod_limit(pod, "cpu") {
            Some(milli) => format!("{} {CPU_PERIOD}", qos::cpu_quota(milli)),
            None => format!("max {CPU_PERIOD}"),
        };
        self.write(&path, "cpu.max", &cpu)?;
        let memory = match qos::pod_limit(pod, "memory") {
            Some(milli) => (milli / 1000).to_string(),
            None => "max".to_owned(),
        };
        self.write(&path, "memory.max", &memory)
    }

    /// Sets the weight of the burstable class to what its pods ask for.
    ///
    /// # Errors
    /// When the weight cannot be written.
    pub fn weigh_burstable<'a>(
        &self,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Result<(), CgroupError> {
        let asked: i64 = pods
            .filter(|p| QosClass::of(p) == QosClass::Burstable)
            .map(|p| qos::pod_request(p, "cpu"))
            .sum();
        let weight = qos::cpu_weight(qos::cpu_shares(asked)).to_string();
        self.write(&self.base.join("burstable"), "cpu.weight", &weight)
    }

    /// Kills what is left in the pod's cgroup and removes it, whatever its class; idempotent.
    ///
    /// # Errors
    /// When it still cannot be removed after two seconds.
    pub async fn remove(&self, uid: &PodUid) -> Result<(), CgroupError> {
        for class in ["", "burstable", "besteffort"] {
            let dir = self.dir(&self.base.join(class).join(format!("pod{uid}")));
            if !dir.exists() {
                continue;
            }
            // Absent below Linux 5.14 only; then the removal below says EBUSY.
            let _ = std::fs::write(dir.join("cgroup.kill"), "1");
            let mut tries = 0;
            while let Err(error) = remove_tree(&dir) {
                tries += 1;
                if tries > 40 {
                    return Err(failed("remove", &dir)(error));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Removes every pod's cgroup and the tree itself; idempotent.
    ///
    /// # Errors
    /// When a pod's cgroup cannot be removed, or something else is in the tree.
    pub async fn remove_all(&self) -> Result<(), CgroupError> {
        for uid in self.present() {
            self.remove(&uid).await?;
        }
        let dir = self.base_dir();
        remove_tree(&dir).map_err(failed("remove", &dir))
    }

    /// UIDs of the pods that have a cgroup here.
    #[must_use]
    pub fn present(&self) -> Vec<PodUid> {
        let mut found = Vec::new();
        for class in ["", "burstable", "besteffort"] {
            let entries = std::fs::read_dir(self.dir(&self.base.join(class)));
            for entry in entries.into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if let Some(uid) = name.strip_prefix("pod") {
                    found.push(PodUid::from(uid.to_owned()));
                }
            }
        }
        found
    }

    /// How many processes a pod has, threads counted one by one where the kernel counts them
    /// (pids controller).
    #[must_use]
    pub fn processes(&self, pod: &Pod) -> u64 {
        let dir = self.pod_dir(pod);
        let counted = std::fs::read_to_string(dir.join("pids.current"));
        let counted = counted.ok().and_then(|text| text.trim().parse().ok());
        counted.unwrap_or_else(|| count_processes(&dir))
    }

    fn dir(&self, path: &Path) -> PathBuf {
        self.mount.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Makes a cgroup and hands it, and its future children, the controllers.
    fn make(&self, path: &Path) -> Result<(), CgroupError> {
        let dir = self.dir(path);
        std::fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        let below: PathBuf = path.strip_prefix("/").unwrap_or(path).into();
        let mut at = self.mount.clone();
        delegate(&at)?;
        for part in below.components() {
            at.push(part);
            delegate(&at)?;
        }
        Ok(())
    }

    /// Writes a limit; where its controller is missing there is nothing to write.
    fn write(&self, path: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
        let file = self.dir(path).join(file);
        if !file.exists() {
            return Ok(());
        }
        std::fs::write(&file, value).map_err(failed("write", &file))
    }
}

/// Enables every wanted controller for the children of `dir`.
fn delegate(dir: &Path) -> Result<(), CgroupError> {
    let have = controllers(dir);
    let file = dir.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    for controller in WANTED.iter().filter(|c| have.contains(**c)) {
        if enabled.split_whitespace().any(|c| c == *controller) {
            continue;
        }
        let written = std::fs::write(&file, format!("+{controller}"));
        if NEEDED.contains(controller) {
            written.map_err(failed("delegate controllers in", &file))?;
        }
    }
    Ok(())
}

fn controllers(dir: &Path) -> BTreeSet<String> {
    std::fs::read_to_string(dir.join("cgroup.controllers"))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// The cgroup below which the pods of a kubelet without a configured root are: its `own`
/// where that was made for it, else (started from a shell, say) the root of the hierarchy.
/// Where it `has_controllers` to hand on, this process moves into a leaf.
fn place(mount: &Path, own: &Path, has_controllers: bool) -> Result<PathBuf, CgroupError> {
    let (ours, others) = processes(&mount.join(own.strip_prefix("/").unwrap_or(own)));
    // no process may sit in a cgroup that hands controllers on (cgroups(7))
    if own == Path::new("/") || others {
        return Ok("/".into());
    }
    if has_controllers && !ours.is_empty() {
        step_aside(mount, own, &ours)?;
    }
    Ok(own.to_path_buf())
}

/// The cgroup this process is in, without our own leaf.
fn own_cgroup() -> PathBuf {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    let own = Path::new(own.unwrap_or("/"));
    match own.file_name() {
        Some(name) if name == OWN_LEAF => own.parent().unwrap_or(own).to_path_buf(),
        _ => own.to_path_buf(),
    }
}

/// This process and its children among the processes in the cgroup, and whether there are
/// any others; the kernel writes 0 for those of a pid namespace around ours.
fn processes(dir: &Path) -> (Vec<String>, bool) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let me = std::process::id().to_string();
    let (ours, others): (Vec<_>, Vec<_>) = text
        .lines()
        .map(str::to_owned)
        .partition(|pid| *pid == me || pid != "0" && is_ours(pid, &me));
    (ours, !others.is_empty())
}

/// Whether the process is a child of `me` (proc_pid_status(5)), or has ended.
fn is_ours(pid: &str, me: &str) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let mut lines = status.lines();
    lines.any(|line| line.strip_prefix("PPid:").is_some_and(|p| p.trim() == me))
}

/// Moves these processes into a leaf, so that their cgroup may have controllers for children.
fn step_aside(mount: &Path, own: &Path, ours: &[String]) -> Result<(), CgroupError> {
    let leaf = mount
        .join(own.strip_prefix("/").unwrap_or(own))
        .join(OWN_LEAF);
    std::fs::create_dir_all(&leaf).map_err(failed("make", &leaf))?;
    let procs = leaf.join("cgroup.procs");
    for pid in ours {
        match std::fs::write(&procs, pid) {
            // it has ended meanwhile
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
            moved => moved.map_err(failed("move this process to", &procs))?,
        }
    }
    Ok(())
}

/// Where cgroup2 is mounted, from proc_pid_mountinfo(5).
fn find_mount() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        let point = mount.split_whitespace().nth(4)?;
        fs.starts_with("cgroup2 ").then(|| PathBuf::from(point))
    })
}

/// Processes in a cgroup and below it.
fn count_processes(dir: &Path) -> u64 {
    let own = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let below = below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
    own.lines().count() as u64 + below.map(|e| count_processes(&e.path())).sum::<u64>()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    /// A directory stands in for the mount: paths and values are what is tested here.
    fn fake() -> (tempfile::TempDir, PodCgroups) {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = PodCgroups {
            mount: dir.path().to_path_buf(),
            base: "/x/kubepods".into(),
            missing: Vec::new(),
        };
        (dir, cgroups)
    }

    #[test]
    fn classes_have_their_places() {
        let (_dir, cgroups) = fake();
        for (resources, path) in [
            ("{}", "/x/kubepods/besteffort/podu1"),
            ("{requests: {cpu: 1m}}", "/x/kubepods/burstable/podu1"),
            ("{limits: {cpu: 1m, memory: 1k}}", "/x/kubepods/podu1"),
        ] {
            let pod = pod(&format!(
                "containers: [{{name: c, resources: {resources}}}]"
            ));
            assert_eq!(cgroups.parent_of(&pod), path);
        }
    }

    #[test]
    fn a_kubelet_leaves_a_cgroup_that_it_shares_alone() {
        let me = std::process::id();
        for (processes, parent, moved) in [
            (format!("{me}\n"), "/x", Some(me.to_string())),
            (format!("1\n{me}\n"), "/", None),
            (format!("0\n{me}\n"), "/", None),
            (String::new(), "/x", None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("x")).unwrap();
            std::fs::write(dir.path().join("x/cgroup.procs"), &processes).unwrap();
            let place = place(dir.path(), Path::new("/x"), true).unwrap();
            assert_eq!(place, Path::new(parent), "{processes:?}");
            let leaf = dir.path().join("x/berth-agent/cgroup.procs");
            assert_eq!(std::fs::read_to_string(leaf).ok(), moved, "{processes:?}");
        }
    }

    #[tokio::test]
    async fn what_was_made_is_found_and_removed() {
        let (_dir, cgroups) = fake();
        let pod = pod("containers: [{name: c}]");
        cgroups.ensure(&pod).unwrap();
        assert_eq!(cgroups.present(), [PodUid::from("u1".to_owned())]);
        // Files of a cgroup directory vanish with it; here the one written must.
        let _ = std::fs::remove_file(cgroups.pod_dir(&pod).join("cgroup.kill"));
        remove_tree(&cgroups.pod_dir(&pod)).unwrap();
        assert!(cgroups.present().is_empty());
        cgroups
            .remove(&PodUid::from("u1".to_owned()))
            .await
            .unwrap();
    }
}
