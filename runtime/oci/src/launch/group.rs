//! The container's cgroup, which is there before the container is: it is born into it.

use crate::cgroup::{Cgroup, CgroupError, Host, NotEnforced, Placeholder, Scope};
use crate::plan::{CgroupMode, CgroupPlan};
use berth_sys::crash_point;

use super::{LaunchError, Stage};

/// A group with its limits, ready for a process.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) cgroup: Cgroup,
    pub(super) not_enforced: Vec<NotEnforced>,
    /// Keeps systemd's scope until a process of the container is in it.
    placeholder: Option<Placeholder>,
    scope: Option<Scope>,
}

impl Group {
    /// Makes the group of the plan, if it has one; after a failure it is gone.
    pub(super) fn prepare(plan: &CgroupPlan) -> Result<Option<Group>, LaunchError> {
        let (CgroupMode::Managed { degraded_ok } | CgroupMode::Systemd { degraded_ok }) = plan.mode
        else {
            return Ok(None);
        };
        let mut group = Self::make(plan)?;
        crash_point!("create: cgroup made");
        match group.limit(plan, degraded_ok) {
            Ok(()) => {
                crash_point!("create: limits set");
                Ok(Some(group))
            }
            Err(error) => {
                group.undo();
                Err(error)
            }
        }
    }

    fn make(plan: &CgroupPlan) -> Result<Group, LaunchError> {
        let host = Host::probe().map_err(failed("find the cgroup2 hierarchy"))?;
        let (cgroup, placeholder) = match &plan.scope {
            None => {
                let made = Cgroup::create_for(&host, &plan.path, &plan.resources);
                let group = made.map_err(failed("make the group"))?;
                check_unused(&group)?;
                (group, None)
            }
            Some(scope) => {
                let started = scope.start(&plan.resources);
                let placeholder =
                    started.map_err(failed(&format!("make the scope `{}`", scope.unit())))?;
                let opened = Cgroup::open(&host.mount.join(&plan.path));
                (opened.map_err(failed("open the group"))?, Some(placeholder))
            }
        };
        Ok(Group {
            cgroup,
            not_enforced: Vec::new(),
            placeholder,
            scope: plan.scope.clone(),
        })
    }

    fn limit(&mut self, plan: &CgroupPlan, degraded_ok: bool) -> Result<(), LaunchError> {
        let applied = self.cgroup.apply(&plan.resources);
        self.not_enforced = applied.map_err(failed("set the limits"))?;
        match self.not_enforced.first() {
            Some(first) if !degraded_ok => Err(LaunchError::refused(
                Stage::Cgroup,
                format!("set {}", first.field),
                first.reason.clone(),
            )),
            _ => Ok(()),
        }
    }

    /// Takes the group away. The launch's own error is what the caller needs; an empty group left
    /// behind harms nothing.
    pub(super) fn undo(self) {
        drop(self.placeholder);
        let _ = self.cgroup.remove();
        if let Some(scope) = self.scope {
            let _ = Scope::stop(scope.unit());
        }
    }
}

/// A group that is there already is the container's own only if nobody is in it: what is in it ends
/// with the container. In a frozen one the container would never come to be.
fn check_unused(group: &Cgroup) -> Result<(), LaunchError> {
    let step = || format!("take the group `{}`", group.path().display());
    let failed = |error| LaunchError::from_chain(Stage::Cgroup, step(), &error);
    let events = group.events().map_err(failed)?;
    let reason = if events.populated {
        "container's cgroup is not empty: processes of others are in it"
    } else if events.frozen {
        "container's cgroup unexpectedly frozen"
    } else {
        return Ok(());
    };
    Err(LaunchError::refused(Stage::Cgroup, step(), reason))
}

fn failed(step: &str) -> impl FnOnce(CgroupError) -> LaunchError {
    move |error| LaunchError::from_chain(Stage::Cgroup, step, &error)
}
