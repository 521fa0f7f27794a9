//! Stages 3 and 4 of the child: giving up privilege, and waiting for the order to start.
//!
//! On entry: inside the container's root, still privileged. On exit: with the ids, limits and
//! capabilities of the plan; only the seccomp filter is missing, because waiting needs system calls
//! which it may forbid. Without no_new_privs loading a filter takes CAP_SYS_ADMIN (seccomp(2)), so
//! in that one case this capability is kept up to the load.

use std::ffi::CString;
use std::path::Path;

use berth_sys::creds::{self, CapabilityMasks};
use berth_sys::ns::NamespaceKind;

use super::error::At;
use super::exec::{Started, find_program};
use super::join::{Session, degraded, set_ids};
use super::protocol::{Channel, ChildToParent};
use super::{LaunchError, Stage, schedule, stdio};
use crate::capability;
use crate::plan::{ProcessPlan, Rlimit};
use crate::procfs::ProcFs;

/// The child inside its root file system.
#[derive(Debug)]
pub(super) struct Pivoted<'a> {
    pub(super) session: Session<'a>,
    pub(super) proc: ProcFs,
}

/// The child without privilege.
#[derive(Debug)]
pub(super) struct Confined<'a> {
    session: Session<'a>,
    program: CString,
    last: Option<CapabilityMasks>,
}

impl<'a> Pivoted<'a> {
    pub(super) fn confine(self) -> Result<Confined<'a>, LaunchError> {
        let Pivoted { mut session, proc } = self;
        let process = &session.plan.process;
        let last = confine(process, &proc, &session.channel)?;
        drop(proc); // a handle to procfs must not reach the program
        let program = find_program(process)?;
        session.laps.end(Stage::Confine);
        Ok(Confined {
            session,
            program,
            last,
        })
    }
}

impl<'a> Confined<'a> {
    /// Says that everything is done, and waits.
    pub(super) fn await_start(self) -> Result<Started<'a>, LaunchError> {
        let Confined {
            session,
            program,
            last,
        } = self;
        let namespaces = &session.plan.namespaces;
        if namespaces.create.contains(&NamespaceKind::User) && namespaces.join.is_empty() {
            // Alone in a user namespace it can be traced by that one's owner only, who is to verify it
            // and may have no other right (ptrace(2), "Ptrace access mode checking").
            creds::set_dumpable(true).at(Stage::AwaitStart, || "become traceable".into())?;
        }
        session
            .channel
            .send(&ChildToParent::Ready(session.laps.over()), &[])
            .at(Stage::AwaitStart, || "report to the parent".into())?;
        let channel = session
            .gate
            .wait(session.channel)
            .at(Stage::AwaitStart, || "wait for the order".into())?;
        Ok(Started {
            container: Some(session.plan),
            process: &session.plan.process,
            program,
            last,
            channel,
        })
    }
}

/// Gives up what the plan does not grant. Returns the capability sets that remain to be set after
/// the seccomp filter is loaded, if they cannot be set before.
pub(super) fn confine(
    process: &ProcessPlan,
    proc: &ProcFs,
    channel: &Channel,
) -> Result<Option<CapabilityMasks>, LaunchError> {
    schedule::apply(&process.schedule)?;
    for limit in &process.rlimits {
        set_limit(limit, channel)?;
    }
    stdio::give_to(process.uid).at(Stage::Confine, || "give the streams to the user".into())?;
    if process.no_new_privs {
        creds::set_no_new_privs().at(Stage::Confine, || "set no_new_privs".into())?;
    }
    if let Some(profile) = &process.apparmor {
        set_apparmor(proc, profile)?;
    }
    if let Some(label) = &process.selinux {
        set_selinux(proc, label)?;
    }
    let present =
        creds::permitted_capabilities().at(Stage::Confine, || "read the capabilities".into())?;
    let wanted = &process.capabilities;
    let missing = wanted.permitted & !present;
    if missing != 0 {
        let names = capability::names(missing).join(", ");
        degraded(
            channel,
            format!("capabilities which the runtime does not have itself: {names}"),
        )?;
    }
    creds::limit_bounding(wanted.bounding)
        .at(Stage::Confine, || "limit the bounding set".into())?;
    creds::set_keep_capabilities(true)
        .at(Stage::Confine, || "keep capabilities over setuid".into())?;
    set_ids(process.uid, process.gid, &process.groups, proc).at(Stage::Confine, || {
        format!("become user {} of group {}", process.uid, process.gid)
    })?;
    creds::set_keep_capabilities(false)
        .at(Stage::Confine, || "stop keeping capabilities".into())?;
    let last = CapabilityMasks {
        bounding: wanted.bounding,
        effective: wanted.effective & present,
        permitted: wanted.permitted & present,
        inheritable: wanted.inheritable & present,
        ambient: wanted.ambient & present,
    };
    let late = process.seccomp.is_some() && !process.no_new_privs;
    let kept = if late { capability::SYS_ADMIN } else { 0 };
    creds::set_capabilities(
        last.effective | kept,
        last.permitted | kept,
        last.inheritable,
    )
    .at(Stage::Confine, || "set the capabilities".into())?;
    creds::set_ambient(last.ambient)
        .at(Stage::Confine, || "set the ambient capabilities".into())?;
    Ok(late.then_some(last))
}

/// Sets a limit. Raising a hard limit takes CAP_SYS_RESOURCE: where that lacks, the limit goes as
/// far up as it may, with a report.
fn set_limit(limit: &Rlimit, channel: &Channel) -> Result<(), LaunchError> {
    let step = || format!("set {} to {}:{}", limit.name, limit.soft, limit.hard);
    match creds::set_rlimit(limit.resource, limit.soft, limit.hard) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let (_, ceiling) = creds::rlimit(limit.resource).at(Stage::Confine, step)?;
            let (soft, hard) = (limit.soft.min(ceiling), limit.hard.min(ceiling));
            creds::set_rlimit(limit.resource, soft, hard).at(Stage::Confine, step)?;
            degraded(
                channel,
                format!(
                    "{} is {soft}:{hard} instead of {}:{}",
                    limit.name, limit.soft, limit.hard
                ),
            )
        }
        done => done.at(Stage::Confine, step),
    }
}

fn set_apparmor(proc: &ProcFs, profile: &str) -> Result<(), LaunchError> {
    let step = || format!("ask for AppArmor profile `{profile}`");
    let value = format!("exec {profile}");
    match proc.write(Path::new("self/attr/apparmor/exec"), &value) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Before Linux 5.8 there is only the file that all security modules share.
            proc.write(Path::new("self/attr/exec"), &value)
                .at(Stage::Confine, step)
        }
        done => done.at(Stage::Confine, step),
    }
}

/// Asks for the label and reads back what the kernel noted: a policy may refuse it only at exec.
fn set_selinux(proc: &ProcFs, label: &str) -> Result<(), LaunchError> {
    let step = || format!("ask for SELinux label `{label}`");
    let file = Path::new("self/attr/exec");
    proc.write(file, label).at(Stage::Confine, step)?;
    let noted = proc.read(file).at(Stage::Confine, step)?;
    if noted.trim_end_matches(['\0', '\n']) == label {
        return Ok(());
    }
    Err(LaunchError::refused(
        Stage::Confine,
        step(),
        format!("the kernel has `{}`", noted.trim_end_matches('\0')),
    ))
}
