//! Removing cgroups whose processes are on their way out, without waiting for them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_oci::cgroup::Cgroup;

/// Pause before the first retry; doubled each time up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// When to stop trying.
const GIVE_UP: Duration = Duration::from_secs(10);

struct Leaving {
    cgroup: PathBuf,
    next: Instant,
    pause: Duration,
    until: Instant,
}

/// cgroups that are to go.
#[derive(Default)]
pub struct Cleanup(Vec<Leaving>);

impl Cleanup {
    /// Removes `cgroup` and all below, now or as soon as its killed processes have left.
    pub fn add(&mut self, cgroup: PathBuf) {
        let now = Instant::now();
        if !remove(&cgroup) {
            self.0.push(Leaving {
                cgroup,
                next: now + PAUSE,
                pause: PAUSE,
                until: now + GIVE_UP,
            });
        }
    }

    /// Removes `cgroup` if no process is in it.
    pub fn add_if_empty(&mut self, cgroup: PathBuf) {
        remove(&cgroup);
    }

    /// When [`Cleanup::run`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|leaving| leaving.next).min()
    }

    /// Tries again; returns a line for people for each that is given up.
    pub fn run(&mut self) -> Vec<String> {
        let now = Instant::now();
        let mut failed = Vec::new();
        self.0.retain_mut(|leaving| {
            if leaving.next > now {
                return true;
            }
            if remove(&leaving.cgroup) {
                return false;
            }
            if leaving.until <= now {
                failed.push(format!(
                    "cgroup `{}` still has processes",
                    leaving.cgroup.display()
                ));
                return false;
            }
            leaving.pause = (leaving.pause * 2).min(PAUSE_MAX);
            leaving.next = now + leaving.pause;
            true
        });
        failed
    }

    /// Whether nothing is left to remove.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Removes the group if it has no process; true when it is gone.
fn remove(cgroup: &Path) -> bool {
    let Ok(group) = Cgroup::open(cgroup) else {
        return !cgroup.exists();
    };
    // Asked first, because removing waits for processes.
    matches!(group.populated(), Ok(false)) && group.remove().is_ok()
}
