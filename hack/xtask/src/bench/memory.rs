//! What a daemon and the pods of a CRI server hold of memory, from `/proc`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Name (`comm`) of the process that holds a pod's namespaces, on every side.
const PAUSE: &str = "berth-pause";

/// Resident memory of a process in KiB.
pub fn resident(pid: u32) -> Result<f64> {
    figure(Path::new(&format!("/proc/{pid}/status")), "VmRSS:")
}

/// Proportional memory in KiB of every process called `keeper` in this mount namespace,
/// and of the pause processes below them, for each of `pods` pods.
pub fn of_pods(keeper: &str, pods: usize) -> Result<f64> {
    let ours = fs::read_link("/proc/self/ns/mnt")?;
    let mut keepers = 0;
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let process = entry.path();
        // a process may end while it is looked at
        let is_keeper = comm(&process).is_some_and(|name| name == keeper)
            && fs::read_link(process.join("ns/mnt")).is_ok_and(|its| its == ours);
        if !is_keeper {
            continue;
        }
        keepers += 1;
        sum += proportional(&process)?;
        let children = fs::read_to_string(
            process.join(format!("task/{}/children", entry.file_name().display())),
        )?;
        for child in children.split_whitespace() {
            let child = Path::new("/proc").join(child);
            if comm(&child).is_some_and(|name| name == PAUSE) {
                sum += proportional(&child)?;
            }
        }
    }
    ensure!(
        keepers == pods,
        "{keepers} processes are called {keeper} for {pods} pods"
    );
    Ok(sum / pods as f64)
}

fn proportional(process: &Path) -> Result<f64> {
    figure(&process.join("smaps_rollup"), "Pss:")
}

fn comm(process: &Path) -> Option<String> {
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// The number of KiB in the line that begins with `field`.
fn figure(file: &Path, field: &str) -> Result<f64> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let rest = text.lines().find_map(|line| line.strip_prefix(field));
    let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{} has no {field}", file.display()))
}
