//! Where and when the process runs: set while it still has the privilege that this may take.

use berth_sys::sched::{self, Mask};

use super::error::At;
use super::{LaunchError, Stage};
use crate::plan::Schedule;

/// Sets everything that concerns the calling process from here on.
pub(super) fn apply(schedule: &Schedule) -> Result<(), LaunchError> {
    if let Some(domain) = schedule.personality {
        sched::set_personality(domain)
            .at(Stage::Confine, || format!("set personality {domain}"))?;
    }
    if let Some(memory) = &schedule.memory {
        sched::set_memory_policy(memory.mode, memory.nodes.as_ref())
            .at(Stage::Confine, || "set the memory policy".into())?;
    }
    if let Some(priority) = schedule.io_priority {
        sched::set_io_priority(priority.class, priority.level)
            .at(Stage::Confine, || "set the I/O priority".into())?;
    }
    if let Some(scheduler) = &schedule.scheduler {
        sched::set_scheduler(scheduler).at(Stage::Confine, || {
            format!("set scheduling policy {}", scheduler.policy)
        })?;
    }
    Ok(())
}

/// Runs `born`, which makes the process, on the CPUs for that time; the caller's own come back
/// after it (config.md, `execCPUAffinity.initial`).
pub(super) fn born_on<T>(
    schedule: &Schedule,
    born: impl FnOnce() -> Result<T, LaunchError>,
) -> Result<T, LaunchError> {
    let Some(cpus) = &schedule.initial_cpus else {
        return born();
    };
    let own = sched::affinity().at(Stage::Clone, || "read the own CPUs".into())?;
    sched::set_affinity(cpus).at(Stage::Clone, || "run on the initial CPUs".into())?;
    let made = born();
    sched::set_affinity(&own).at(Stage::Clone, || "return to the own CPUs".into())?;
    made
}

/// The CPUs of a further process once it is in the container's cgroup.
pub(super) fn settle_on(cpus: Option<&Mask>) -> Result<(), LaunchError> {
    match cpus {
        Some(cpus) => {
            sched::set_affinity(cpus).at(Stage::Confine, || "run on the final CPUs".into())
        }
        None => Ok(()),
    }
}
