//! The parent's half of a launch: cgroup, clone, and listening until the child is ready.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::ns::{Namespace, NamespaceKind};
use berth_sys::process::{self, Child, CloneArgs};
use berth_sys::{creds, ns};

use super::error::At;
use super::group::Group;
use super::join::{self, Joining, Session};
use super::joins::{self, Joins};
use super::laps::Laps;
use super::protocol::{Channel, ChildToParent, ParentToChild};
use super::{Created, Gate, LaunchError, ProcessIo, Stage, Timings, netdev, stdio, users};
use crate::cgroup::Cgroup;
use crate::hooks;
use crate::plan::Plan;
use crate::record::Watch;
use crate::rootfs::{MapNamespaces, Origin};
use crate::state::Status;
use berth_sys::crash_point;

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
    let mut group = Group::prepare(&plan.cgroup)?;
    laps.end(Stage::Cgroup);
    let not_enforced = group
        .as_mut()
        .map(|group| std::mem::take(&mut group.not_enforced));
    let cgroup = group.as_ref().map(|group| &group.cgroup);
    let made = clone_child(plan, io, gate, cgroup).and_then(|(child, channel)| {
        laps.end(Stage::Clone);
        crash_point!("create: child cloned");
        match listen(&channel, &child, plan) {
            Ok(mut report) => {
                report.timings = laps.over().then(report.timings);
                let not_enforced = not_enforced.unwrap_or_default();
                Ok(Created::new(child, channel, report, not_enforced))
            }
            Err(error) => Err(reap(child, error)),
        }
    });
    if made.is_err()
        && let Some(group) = group
    {
        group.undo();
    }
    made
}

fn clone_child(
    plan: &Plan,
    io: ProcessIo,
    gate: Gate,
    cgroup: Option<&Cgroup>,
) -> Result<(Child, Channel), LaunchError> {
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
    let child = if plan.namespaces.has_own(NamespaceKind::User) {
        users::clone_child(session, cgroup)?
    } else {
        clone_directly(session, cgroup)?
    };
    Ok((child, ours))
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
    watch: Option<&Watch<'_>>,
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

/// Ends and collects a child whose launch failed.
pub(super) fn reap(child: Child, error: LaunchError) -> LaunchError {
    let _ = process::pidfd_send_signal(child.pidfd(), libc::SIGKILL);
    let _ = process::wait(child.pidfd()); // ECHILD when `listen` has collected it
    error
}
