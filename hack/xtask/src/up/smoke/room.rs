//! Whether the disk has room for the tour.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::statvfs;

/// Percent of a disk below which a kubelet that is told nothing else evicts pods (its
/// `imagefs.available`, the greatest of its thresholds).
const LEAST_PERCENT: u64 = 15;
/// What the tour itself may write, in bytes.
const TOUR: u64 = 1 << 30;

/// An error where the kubelet would call the disk of `folder` full before the tour has ended.
pub fn ensure_room(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|path| path.exists());
    let there = there.context("no part of the path exists")?;
    let disk = statvfs(there).with_context(|| format!("cannot look at {}", there.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    let least = disk.f_blocks * disk.f_frsize / 100 * LEAST_PERCENT + TOUR;
    ensure!(
        free >= least,
        "the disk is nearly full: {} MiB are free on that of {}, and the tour needs {} MiB: \
         below {LEAST_PERCENT} % the kubelet evicts pods",
        free >> 20,
        folder.display(),
        least >> 20,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_to_come_lies_on_the_disk_of_its_parent() {
        // procfs has no blocks, so none are free
        let refused = ensure_room(Path::new("/proc/tour/data")).unwrap_err();
        assert!(refused.to_string().contains("/proc/tour/data"), "{refused}");
        assert!(refused.to_string().contains("nearly full"), "{refused}");
    }
}
