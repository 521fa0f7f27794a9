//! The parent's half of a launch: cgroup, clone, and listening until the child is ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use berth_sys::ns::{Namespace, NamespaceKind};
use berth_sys::process::{self, Child, CloneArgs};
use berth_sys::{creds, ns};

use super::error::At;
use super::group::Group;
use super::join::{self, Joining, Session};
use super::joins::{self, Joins};
use super::laps::Laps;
use super::protocol::{Channel, ChildToParent, ParentToChild};
use super::users::Born;
use super::{
    Created, Gate, LaunchError, ProcessIo, Stage, Timings, Verified, netdev, stdio, users,
};
use crate::cgroup::{Cgroup, NotEnforced};
use crate::hooks;
use crate::plan::Plan;
use crate::record::{Record, Refused, Requested, Watch};
use crate::rootfs::{MapNamespaces, Origin};
use crate::state::Status;
use berth_sys::crash_point;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// Exit code of a child which failed before its program ran.
const FAILED: i32 = 1;

/// What a child has said up to [`ChildToParent::Ready`].
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) console: Option<OwnedFd>,
    pub(super) degraded: Vec<String>,
    pub(super) timings: Timings,
}

pub(super) fn create(plan: &Plan, io: ProcessIo, gate: Gate) -> Result<Created, LaunchError> {
    #[cfg(feature = "test-util")]
    let plan = &crate::fault::container(plan);
    let mut laps = Laps::begin();
    in_group(plan, |cgroup, not_enforced| {
        laps.end(Stage::Cgroup);
        let (Born { child, usher }, channel) = clone_child(plan, io, gate, cgroup)?;
        laps.end(Stage::Clone);
        crash_point!("create: child cloned");
        let told = set_oom_score(plan, &child);
        match told.and_then(|told| Ok((told, listen(&channel, &child, plan)?))) {
            Ok((told, mut report)) => {
                drop(usher);
                report.degraded.extend(told);
                report.timings = laps.over().then(report.timings);
                Ok(Created::new(child, channel, report, not_enforced))
            }
            Err(error) => Err(reap(child, error)),
        }
    })
}

/// Makes the container of `plan` and lets it start, compared before its program's first
/// instruction with what was `asked`, which is put together while the child is at work.
pub(super) fn start_verified(
    plan: &Plan,
    io: ProcessIo,
    asked: impl FnOnce() -> Requested,
) -> Result<Verified, Refused> {
    #[cfg(feature = "test-util")]
    let plan = &crate::fault::container(plan);
    in_group(plan, |cgroup, not_enforced| {
        let (Born { child, usher }, channel) = clone_child(plan, io, Gate::Parent, cgroup)?;
        crash_point!("create: child cloned");
        let scored = set_oom_score(plan, &child).map_err(Refused::from);
        // What stays as it was, the comparison tells as well.
        let verified = scored.and_then(|_| verify(plan, &child, &channel, asked()));
        drop(usher);
        match verified {
            Ok((record, console)) => Ok(Verified {
                running: child.into(),
                console,
                record,
                not_enforced,
            }),
            Err(refused) => Err(reap_refused(child, refused)),
        }
    })
}

fn verify(
    plan: &Plan,
    child: &Child,
    channel: &Channel,
    asked: Requested,
) -> Result<(Record, Option<OwnedFd>), Refused> {
    let mut ready = None;
    if asks_the_parent(plan) {
        ready = Some(listen(channel, child, plan)?);
    }
    let mut watch = Watch::begin(child.pid(), asked)?;
    if watch.needs_barrier() && ready.is_none() {
        ready = Some(listen(channel, child, plan)?);
    }
    watch.at_barrier()?;
    // Without a need to be heard before, the child finds the order when it comes so far.
    order(channel)?;
    let report = listen_for_exec(channel, Some(&watch))?;
    let console = ready.and_then(|ready| ready.console).or(report.console);
    Ok((watch.finish()?, console))
}

/// Whether the child has to be heard up to its readiness before it can be held: the parent has
/// its part in it, hooks are children whose ends would stop it, and the first process of a new
/// user namespace can be traced by who is not privileged only then.
fn asks_the_parent(plan: &Plan) -> bool {
    let hooks = &plan.hooks;
    let hooks = [
        &hooks.create_runtime,
        &hooks.create_container,
        &hooks.start_container,
    ];
    hooks.iter().any(|hooks| !hooks.is_empty())
        || !plan.net_devices.is_empty()
        || plan.namespaces.has_own(NamespaceKind::User)
}

/// Does what is to be done in the container's group, which goes again if that fails.
fn in_group<T, E: From<LaunchError>>(
    plan: &Plan,
    act: impl FnOnce(Option<&Cgroup>, Vec<NotEnforced>) -> Result<T, E>,
) -> Result<T, E> {
    let mut group = Group::prepare(&plan.cgroup)?;
    let not_enforced = group
        .as_mut()
        .map(|group| std::mem::take(&mut group.not_enforced))
        .unwrap_or_default();
    let done = act(group.as_ref().map(|group| &group.cgroup), not_enforced);
    if done.is_err()
        && let Some(group) = group
    {
        group.undo();
    }
    done
}

fn clone_child(
    plan: &Plan,
    io: ProcessIo,
    gate: Gate,
    cgroup: Option<&Cgroup>,
) -> Result<(Born, Channel), LaunchError> {
    let (ours, theirs) = Channel::pair().at(Stage::Clone, || "make the channel".into())?;
    let session = Session {
        plan,
        channel: theirs,
        gate,
        io,
        laps: Laps::begin(),
    };
    let cgroup = cgroup.map(AsFd::as_fd);
    // The session is gone on return: the child's end of the channel, its streams and its gate.
    let born = if plan.namespaces.has_own(NamespaceKind::User) {
        users::clone_child(session, cgroup)?
    } else {
        clone_directly(session, cgroup)?.into()
    };
    Ok((born, ours))
}

/// Clones the child from here: everything it joins or makes is within the caller's rights.
fn clone_directly(
    session: Session<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Child, LaunchError> {
    let plan = session.plan;
    let all = plan.namespaces.join.iter().cloned();
    let (pid, others): (Vec<_>, Vec<_>) = all.partition(|(kind, _)| *kind == NamespaceKind::Pid);
    let pid_namespace = pid.first().map(|(kind, path)| joins::open(*kind, path));
    let pid_namespace = pid_namespace.transpose()?;
    let joins = Joins::open(&others)?;
    let args = CloneArgs {
        namespaces: made_by_clone(plan),
        cgroup,
        sibling: false,
    };
    let maps = MapNamespaces::make(&plan.rootfs.mounts, None)?;
    let mut inside = Some((session, joins, Origin::Here(maps)));
    clone_into(
        pid_namespace.as_ref().map(AsFd::as_fd),
        &args,
        || match inside.take() {
            Some((session, joins, origin)) => run(session, joins, origin),
            None => FAILED,
        },
    )
}

/// `CLONE_NEW*` bits of the namespaces into which a child of `plan` is born. The user namespace
/// exists before (users.rs), and the child makes those of time and cgroup itself (join.rs).
pub(super) fn made_by_clone(plan: &Plan) -> i32 {
    let made = plan.namespaces.create.iter();
    use NamespaceKind::{Cgroup, Time, User};
    made.filter(|kind| !matches!(kind, Cgroup | Time | User))
        .fold(0, |flags, kind| flags | kind.flag())
}

/// Clones with `pid_namespace` (if any; a namespace file, or a pidfd of a process in it) as the one
/// in which the child is born.
pub(super) fn clone_into(
    pid_namespace: Option<BorrowedFd<'_>>,
    args: &CloneArgs<'_>,
    child: impl FnOnce() -> i32,
) -> Result<Child, LaunchError> {
    let Some(namespace) = pid_namespace else {
        return process::clone_with(args, child).at(Stage::Clone, || "clone the child".into());
    };
    let own = Namespace::own(NamespaceKind::Pid)
        .at(Stage::Clone, || "open the own PID namespace".into())?;
    // From its first instruction on the child is seen by the processes of that namespace: it must
    // not be traceable even then (CVE-2016-9962), and it inherits that from here.
    join::untraceable()?;
    let joined = ns::join(namespace, NamespaceKind::Pid.flag())
        .at(Stage::Clone, || "choose the PID namespace".into());
    let cloned = joined.and_then(|()| {
        process::clone_with(args, child).at(Stage::Clone, || "clone the child".into())
    });
    let back = own
        .join()
        .at(Stage::Clone, || "return to the own PID namespace".into());
    creds::set_dumpable(true).at(Stage::Clone, || "become traceable again".into())?;
    let cloned = cloned?;
    back.map(|()| cloned)
}

/// The child, from its first to its last instruction before the program.
pub(super) fn run(mut session: Session<'_>, joins: Joins, origin: Origin) -> i32 {
    let mut keep: Vec<BorrowedFd<'_>> = vec![session.channel.as_fd()];
    keep.extend(session.gate.as_fd());
    keep.extend(stdio::borrowed(&session.io));
    keep.extend(joins.borrowed());
    keep.extend(origin.descriptors());
    session.laps = Laps::begin();
    let closed = process::close_inherited_from(3 + session.plan.process.preserve_fds, &keep);
    // A second handle for the report, since the stages consume the session.
    let report = session.channel.try_clone();
    let outcome = closed
        .at(Stage::Join, || "close the parent's descriptors".into())
        .and_then(|()| {
            let joining = Joining {
                session,
                joins,
                origin,
            };
            joining.enter()?.build_rootfs()?.confine()?.await_start()
        });
    let (error, channel) = match outcome {
        Ok(started) => {
            drop(report); // the end of the stream must mean execve
            started.exec()
        }
        Err(error) => match report {
            Ok(channel) => (error, channel),
            Err(_) => return FAILED,
        },
    };
    channel.tell_failure(error);
    FAILED
}

/// Hears the child out up to Ready.
fn listen(channel: &Channel, child: &Child, plan: &Plan) -> Result<Report, LaunchError> {
    let mut report = Report::default();
    loop {
        let message = channel
            .recv::<ChildToParent>()
            .at(Stage::Clone, || "hear from the child".into())?;
        match message {
            Some((ChildToParent::Degraded(what), _)) => report.degraded.push(what),
            Some((ChildToParent::Console, mut fds)) => report.console = fds.pop(),
            Some((ChildToParent::Joined, _)) => {
                netdev::hand_over(&plan.net_devices, child.pid())?;
                let state = hooks::state(plan, Status::Creating, child.pid() as u32);
                hooks::run(&plan.hooks.create_runtime, &state, &plan.bundle)?;
                let ran = channel.send(&ParentToChild::HooksRun, &[]);
                ran.at(Stage::Hook, || "let the child go on".into())?;
            }
            Some((ChildToParent::Born(_), _)) => {}
            Some((ChildToParent::Ready(timings), _)) => {
                report.timings = timings;
                return Ok(report);
            }
            Some((ChildToParent::Listener(_), _)) => return Ok(report),
            Some((ChildToParent::Failed(error), _)) => return Err(error),
            None => {
                let end = process::wait(child.pidfd())
                    .at(Stage::Clone, || "wait for the child".into())?;
                return Err(LaunchError::refused(
                    Stage::Clone,
                    "hear from the child",
                    format!("it ended early: {end:?}"),
                ));
            }
        }
    }
}

/// Lets a waiting child execute its program.
pub(super) fn order(channel: &Channel) -> Result<(), LaunchError> {
    match channel.send(&ParentToChild::Start, &[]) {
        // It has ended already, and said why: that is heard next.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent.at(Stage::AwaitStart, || "order the start".into()),
    }
}

/// Hears a further process out up to Ready.
pub(super) fn listen_for_ready(channel: &Channel) -> Result<Report, LaunchError> {
    let mut report = Report::default();
    loop {
        let step = || "hear from the child".to_owned();
        match channel
            .recv::<ChildToParent>()
            .at(Stage::AwaitStart, step)?
        {
            Some((ChildToParent::Degraded(what), _)) => report.degraded.push(what),
            Some((ChildToParent::Console, mut fds)) => report.console = fds.pop(),
            Some((
                ChildToParent::Born(_) | ChildToParent::Joined | ChildToParent::Listener(_),
                _,
            )) => {}
            Some((ChildToParent::Ready(_), _)) => return Ok(report),
            Some((ChildToParent::Failed(error), _)) => return Err(error),
            None => {
                let reason = "it ended early";
                return Err(LaunchError::refused(Stage::AwaitStart, step(), reason));
            }
        }
    }
}

/// Hears the child out up to the execve of its program; a watch passes on what it must meanwhile.
pub(super) fn listen_for_exec(
    channel: &Channel,
    watch: Option<&Watch>,
) -> Result<Report, LaunchError> {
    let mut report = Report::default();
    let mut pipes = Vec::new();
    loop {
        if let Some(watch) = watch {
            watch.until_heard(channel)?;
        }
        let heard = match channel.recv::<ChildToParent>() {
            // It ended with our order unread; told once, before what it has said itself (unix(7)).
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => continue,
            heard => heard.at(Stage::Exec, || "hear from the child".into())?,
        };
        match heard {
            Some((ChildToParent::Degraded(what), _)) => report.degraded.push(what),
            Some((ChildToParent::Console, mut fds)) => report.console = fds.pop(),
            Some((ChildToParent::Listener(handover), fds)) => {
                pipes.push(handover.complete(fds)?);
            }
            Some((ChildToParent::Born(_) | ChildToParent::Joined | ChildToParent::Ready(_), _)) => {
            }
            Some((ChildToParent::Failed(error), _)) => return Err(error),
            None => return Ok(report),
        }
    }
}

/// Whether the other end has something to say, or is gone, within that time.
pub(super) fn speaks_within(channel: &Channel, time: Duration) -> io::Result<bool> {
    let limit = Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&limit)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// As [`reap`], with the record that tells why.
pub(super) fn reap_refused(child: Child, refused: Refused) -> Refused {
    Refused {
        error: reap(child, refused.error),
        record: refused.record,
    }
}

/// Sets the OOM score of a child that still has to wait for its order: from here no procfs has to be
/// made for it. In a user namespace the usher does it. Returns what could not be done.
fn set_oom_score(plan: &Plan, child: &Child) -> Result<Option<String>, LaunchError> {
    match plan.process.oom_score_adj {
        Some(adjust) if !plan.namespaces.has_own(NamespaceKind::User) => {
            join::set_oom_score_of(child.pid(), adjust)
        }
        _ => Ok(None),
    }
}

/// Ends and collects a child whose launch failed.
pub(super) fn reap(child: Child, error: LaunchError) -> LaunchError {
    let _ = process::pidfd_send_signal(child.pidfd(), libc::SIGKILL);
    let _ = process::wait(child.pidfd()); // ECHILD when `listen` has collected it
    error
}
