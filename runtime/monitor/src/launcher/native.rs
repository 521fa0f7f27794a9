//! Containers made by the runtime that is linked into the monitor: no mount in the host's table, no other program.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_oci::cgroup;
use berth_oci::launch::{self, ProcessIo};
use berth_oci::plan::{self, ExecPlan, Plan, Source};
use berth_oci::record;
use berth_oci::spec::{
    self,
    config::{Process, Spec},
};

use super::{Executed, LaunchFailure, Launcher, Started, Target};
use crate::protocol::{CgroupMode, LaunchContainer, Rootfs};
use crate::stdio::{self, Ends};
use crate::time;

/// The daemon hides the environment's digest with its own key, and needs the plain one for that.
const UNSALTED: &str = "";

/// The linked runtime.
#[derive(Debug, Clone, Copy)]
pub struct Native {
    /// `oom_score_adj` of a process whose spec names none: what the monitor had before it protected itself.
    pub oom_score_adj: i32,
}

impl Launcher for Native {
    fn start(&self, container: &LaunchContainer) -> Result<Started, LaunchFailure> {
        let spec = load(&container.bundle)?;
        check_terminal(container.tty, spec.process.as_ref())?;
        let mut plan = Plan::from_spec(&spec, &source(container)).map_err(LaunchFailure::Spec)?;
        plan.process.oom_score_adj.get_or_insert(self.oom_score_adj);
        let cgroup = cgroup_path(container.cgroup, &plan.cgroup.path)?;
        drop(spec);
        let (ends, io) = if container.tty {
            (
                None,
                ProcessIo::Terminal {
                    size: plan.process.console_size,
                },
            )
        } else {
            let owner = Some(plan.process.uid).filter(|uid| *uid != 0);
            let (ends, child) =
                stdio::pipes(container.stdin, owner).map_err(LaunchFailure::Stdio)?;
            let io = ProcessIo::Fds {
                stdin: child.stdin,
                stdout: child.stdout,
                stderr: child.stderr,
            };
            (Some(ends), io)
        };
        let asked = || record::container(&plan, UNSALTED);
        let started = launch::start_verified(&plan, io, asked).map_err(LaunchFailure::refused)?;
        let started_at = time::now();
        let running = started.running;
        let ends = match ends {
            Some(ends) => Ok(ends),
            None => terminal(started.console, container.stdin),
        };
        let ends = ends.inspect_err(|_| running.end())?;
        let not_enforced = started.not_enforced.iter();
        Ok(Started {
            pid: running.pid,
            pidfd: running.pidfd,
            ends,
            cgroup,
            started_at,
            not_enforced: not_enforced
                .map(|limit| format!("{}: {}", limit.field, limit.reason))
                .collect(),
            mounted: None,
            record: super::json(&started.record),
        })
    }

    fn exec(
        &self,
        target: &Target<'_>,
        process: &Process,
        io: ProcessIo,
    ) -> Result<Executed, LaunchFailure> {
        let spec = load(target.bundle)?;
        let cgroup = target.cgroup.map(Path::to_path_buf);
        let mut plan =
            ExecPlan::new(&spec, process, target.pid, cgroup).map_err(LaunchFailure::Spec)?;
        plan.process.oom_score_adj.get_or_insert(self.oom_score_adj);
        drop(spec);
        let requested = record::further(&plan, target.id);
        let executed =
            launch::exec_verified(&plan, io, requested).map_err(LaunchFailure::refused)?;
        Ok(Executed {
            pid: executed.running.pid,
            pidfd: executed.running.pidfd,
            console: executed.console,
            record: super::json(&executed.record),
        })
    }

    fn delete(&self, _id: &str) -> Result<(), LaunchFailure> {
        // Its mounts went with its mount namespace, and it has no state directory.
        Ok(())
    }
}

fn terminal(console: Option<OwnedFd>, stdin: bool) -> Result<Ends, LaunchFailure> {
    let console = console.ok_or(LaunchFailure::NoConsole)?;
    stdio::terminal(console, stdin).map_err(LaunchFailure::Stdio)
}

fn load(bundle: &Path) -> Result<Spec, LaunchFailure> {
    spec::load(&bundle.join("config.json")).map_err(LaunchFailure::Load)
}

/// The request's tty decides which streams are made, so the spec must agree.
fn check_terminal(request: bool, process: Option<&Process>) -> Result<(), LaunchFailure> {
    let spec = process.is_some_and(|process| process.terminal);
    if request == spec {
        Ok(())
    } else {
        Err(LaunchFailure::Terminal { request, spec })
    }
}

fn source(container: &LaunchContainer) -> Source {
    Source {
        id: container.id.clone(),
        bundle: container.bundle.clone(),
        rootfs: match &container.rootfs {
            Rootfs::Path(path) => plan::RootfsSource::Path(path.clone()),
            Rootfs::Overlay {
                lower,
                upper,
                work,
                readonly,
            } => plan::RootfsSource::Overlay {
                lower: lower.clone(),
                upper: upper.clone(),
                work: work.clone(),
                readonly: *readonly,
            },
        },
        cgroup: match container.cgroup {
            CgroupMode::Disabled => plan::CgroupMode::Disabled,
            CgroupMode::Managed { degraded_ok } => plan::CgroupMode::Managed { degraded_ok },
        },
    }
}

fn cgroup_path(mode: CgroupMode, relative: &Path) -> Result<Option<PathBuf>, LaunchFailure> {
    match mode {
        CgroupMode::Disabled => Ok(None),
        CgroupMode::Managed { .. } => {
            let mount = cgroup::mount_point().map_err(LaunchFailure::Cgroup)?;
            Ok(Some(mount.join(relative)))
        }
    }
}
