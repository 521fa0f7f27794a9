//! Stage 1 of the child: into its namespaces.
//!
//! On entry: a copy of the parent, born into the cgroup and into the namespaces that clone3 makes
//! or the parent chose for its children (PID). On exit: in every namespace of the plan, with names
//! and kernel parameters set, and the streams in place. The cgroup namespace is made here, not by
//! clone3: its root is the cgroup of the process that makes it (cgroup_namespaces(7)).

use std::io;
use std::path::Path;

use berth_sys::ns::NamespaceKind;
use berth_sys::{creds, net, ns, process};
use rustix::io::Errno;

use super::error::At;
use super::joins::Joins;
use super::laps::Laps;
use super::protocol::{Channel, ChildToParent, ParentToChild};
use super::rootfs::InNamespaces;
use super::{Gate, LaunchError, ProcessIo, Stage, clocks, stdio};
use crate::fault;
use crate::hooks;
use crate::plan::{Hook, Plan};
use crate::procfs::ProcFs;
use crate::rootfs::Origin;
use crate::state::Status;

/// What all stages of a container's child need.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) plan: &'a Plan,
    pub(super) channel: Channel,
    pub(super) gate: Gate,
    pub(super) io: ProcessIo,
    pub(super) laps: Laps,
}

/// The child before it has joined anything.
#[derive(Debug)]
pub(super) struct Joining<'a> {
    pub(super) session: Session<'a>,
    pub(super) joins: Joins,
    pub(super) origin: Origin,
}

impl<'a> Joining<'a> {
    pub(super) fn enter(self) -> Result<InNamespaces<'a>, LaunchError> {
        let Joining {
            mut session,
            joins,
            origin,
        } = self;
        let plan = session.plan;
        let users = plan.namespaces.has_own(NamespaceKind::User);
        if !users {
            detach_from_parent(&session.channel, plan.process.new_keyring)?;
        }
        stdio::install(&session.io).at(Stage::Join, || "install the standard streams".into())?;
        joins.enter()?;
        let proc = if users || plan.uses_procfs() {
            ProcFs::open().at(Stage::Join, || "open a private procfs".into())?
        } else {
            ProcFs::none()
        };
        clocks::enter(&plan.namespaces, &proc)?;
        if users {
            if let Some(adjust) = plan.process.oom_score_adj {
                set_oom_score(&proc, adjust, &session.channel)?;
            }
            become_root(&proc)?;
            detach_from_parent(&session.channel, plan.process.new_keyring)?;
        }
        if plan.namespaces.create.contains(&NamespaceKind::Cgroup) {
            ns::unshare(NamespaceKind::Cgroup.flag())
                .at(Stage::Join, || "make the cgroup namespace".into())?;
        }
        if plan.namespaces.create.contains(&NamespaceKind::Net) {
            net::raise_loopback().at(Stage::Join, || "bring the loopback device up".into())?;
        }
        set_names(plan)?;
        for (file, value) in &plan.sysctls {
            proc.write(&Path::new("sys").join(file), value)
                .at(Stage::Join, || {
                    format!("set kernel parameter `{}` to `{value}`", file.display())
                })?;
        }
        if !plan.hooks.create_runtime.is_empty() || !plan.net_devices.is_empty() {
            await_hooks(&session.channel)?;
        }
        session.laps.end(Stage::Join);
        Ok(InNamespaces {
            session,
            proc,
            origin,
        })
    }
}

/// Takes id 0 of the user namespace: the present ids need not mean anything in it, and what is
/// made from here on is to belong to its root.
pub(super) fn become_root(proc: &ProcFs) -> Result<(), LaunchError> {
    set_ids(0, 0, &[], proc).at(Stage::Join, || {
        "become root in the user namespace".to_owned()
    })
}

/// Takes ids. Where the user namespace forbids setgroups(2), as that of an ordinary user does, the
/// supplementary groups stay if no other ones are asked for.
pub(super) fn set_ids(uid: u32, gid: u32, groups: &[u32], proc: &ProcFs) -> io::Result<()> {
    match creds::set_ids(uid, gid, groups) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && groups.is_empty() => {
            match proc.read(Path::new("self/setgroups")) {
                Ok(text) if text.trim() == "deny" => creds::set_ids_but_groups(uid, gid),
                _ => Err(error),
            }
        }
        done => done,
    }
}

/// Lets the parent set up what the namespaces hold: network devices, and whatever its hooks do.
fn await_hooks(channel: &Channel) -> Result<(), LaunchError> {
    let step = || "wait for the parent's hooks".to_owned();
    channel
        .send(&ChildToParent::Joined, &[])
        .at(Stage::Hook, step)?;
    match channel.recv::<ParentToChild>().at(Stage::Hook, step)? {
        Some((ParentToChild::HooksRun, _)) => Ok(()),
        _ => Err(LaunchError::refused(
            Stage::Hook,
            step(),
            "the parent is gone",
        )),
    }
}

/// Runs hooks of this process's side, in its working directory.
pub(super) fn run_hooks(hooks: &[Hook], plan: &Plan, status: Status) -> Result<(), LaunchError> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = hooks::state(plan, status, std::process::id());
    Ok(hooks::run(hooks, &state, Path::new("."))?)
}

/// Keeps processes of the container from looking into this one (CVE-2016-9962).
pub(super) fn untraceable() -> Result<(), LaunchError> {
    if fault::is(fault::defence::PROCESSES) {
        return Ok(());
    }
    creds::set_dumpable(false).at(Stage::Join, || "become untraceable".into())
}

/// Leaves what ties the process to its maker: session, umask, keyring, traceability.
pub(super) fn detach_from_parent(channel: &Channel, new_keyring: bool) -> Result<(), LaunchError> {
    untraceable()?;
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {} // PERM: it leads a session already
        Err(errno) => return Err(errno).at(Stage::Join, || "start a session".into()),
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    if !new_keyring {
        return Ok(());
    }
    match process::new_session_keyring() {
        Ok(()) => Ok(()),
        // Kernels without keyrings have nothing to leak; a full quota is reported.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        Err(error) => degraded(channel, format!("no session keyring of its own: {error}")),
    }
}

pub(super) fn degraded(channel: &Channel, message: String) -> Result<(), LaunchError> {
    channel
        .send(&ChildToParent::Degraded(message), &[])
        .at(Stage::Join, || "report to the parent".into())
}

/// Sets the caller's OOM score, with a report where it stays as it is.
pub(super) fn set_oom_score(
    proc: &ProcFs,
    adjust: i32,
    channel: &Channel,
) -> Result<(), LaunchError> {
    match write_oom_score(proc, "self", adjust)? {
        Some(what) => degraded(channel, what),
        None => Ok(()),
    }
}

/// Sets the OOM score of another process. Returns what could not be done.
pub(super) fn set_oom_score_of(pid: i32, adjust: i32) -> Result<Option<String>, LaunchError> {
    let proc = ProcFs::mounted().at(Stage::Join, || "open `/proc`".into())?;
    write_oom_score(&proc, &pid.to_string(), adjust)
}

/// Lowering it needs CAP_SYS_RESOURCE: where that lacks, a present value which is as asked is fine,
/// and any other stays, which is returned. A process that is gone has said why.
fn write_oom_score(proc: &ProcFs, who: &str, adjust: i32) -> Result<Option<String>, LaunchError> {
    let file = format!("{who}/oom_score_adj");
    let file = Path::new(&file);
    let step = || format!("set oom_score_adj to {adjust}");
    match proc.write(file, &adjust.to_string()) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let present = proc.read(file).at(Stage::Join, step)?;
            let present = present.trim();
            let same = present.parse() == Ok(adjust);
            Ok((!same)
                .then(|| format!("oom_score_adj stays {present} instead of {adjust}: {error}")))
        }
        Err(error) => Err(error).at(Stage::Join, step),
    }
}

fn set_names(plan: &Plan) -> Result<(), LaunchError> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .at(Stage::Join, || format!("set the host name `{name}`"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .at(Stage::Join, || format!("set the domain name `{name}`"))?;
    }
    Ok(())
}
