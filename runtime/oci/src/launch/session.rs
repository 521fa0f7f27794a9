//! A further process in a running container: the stages of [`super::create`] without a root to build.
//!
//! The child is born in the container's cgroup and PID namespace, untraceable, and closes what it
//! got from its parent before it enters the namespaces that the container's processes see.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use berth_sys::ns::{self, NamespaceKind};
use berth_sys::process::{self, CloneArgs};
use berth_sys::{crash_point, creds};
use rustix::fs::CWD;

use super::error::At;
use super::exec::{Started, find_program};
use super::protocol::{Channel, ChildToParent, ParentToChild};
use super::users::Born;
use super::{
    Executed, LaunchError, ProcessIo, Running, Stage, Timings, confine, join, parent, rootfs,
    schedule, stdio, users,
};
use crate::capability;
use crate::cgroup::{Cgroup, CgroupError};
use crate::plan::ExecPlan;
use crate::procfs::ProcFs;
use crate::record::{Record, Refused, Requested, Watch};

/// Exit code of a child which failed before its program ran.
const FAILED: i32 = 255;

/// What an usher clones.
const SIBLING: CloneArgs<'_> = CloneArgs {
    namespaces: 0,
    cgroup: None,
    sibling: true,
};

pub(super) fn exec(
    plan: &ExecPlan,
    io: ProcessIo,
) -> Result<(Running, Option<OwnedFd>), LaunchError> {
    let made = make(plan, io, false)?;
    let alive = await_life(&made.channel, made.watched.as_ref(), None);
    match alive.and_then(|()| parent::listen_for_exec(&made.channel, None)) {
        Ok(report) => Ok((Running::from(made.born.child), report.console)),
        Err(error) => Err(parent::reap(made.born.child, error)),
    }
}

/// As [`exec`], with the new process compared to what was asked before its program runs.
pub(super) fn exec_verified(
    plan: &ExecPlan,
    io: ProcessIo,
    requested: Requested,
) -> Result<Executed, Refused> {
    #[cfg(feature = "test-util")]
    let plan = &crate::fault::further(plan);
    let made = make(plan, io, true)?;
    match verify(&made, requested) {
        Ok((record, console)) => Ok(Executed {
            running: Running::from(made.born.child),
            console,
            record,
        }),
        Err(refused) => Err(parent::reap_refused(made.born.child, refused)),
    }
}

fn verify(made: &Made, requested: Requested) -> Result<(Record, Option<OwnedFd>), Refused> {
    let (channel, pid) = (&made.channel, made.born.child.pid());
    if let Some(adjust) = made.score {
        // What stays as it was, the comparison tells.
        join::set_oom_score_of(pid, adjust)?;
    }
    let mut watch = Watch::begin(pid, requested)?;
    let mut console = None;
    if watch.needs_barrier() {
        await_life(channel, made.watched.as_ref(), None)?;
        console = parent::listen_for_ready(channel)?.console;
        watch.at_barrier()?;
    }
    // It finds the order when it comes so far, and does not have to wait.
    parent::order(channel)?;
    await_life(channel, made.watched.as_ref(), Some(&watch))?;
    let report = parent::listen_for_exec(channel, Some(&watch))?;
    Ok((watch.finish()?, report.console.or(console)))
}

/// A process on its way to its program.
struct Made {
    born: Born,
    channel: Channel,
    /// The OOM score which the parent has to set: until the order there is time for it, and from
    /// there no procfs has to be made for it.
    score: Option<i32>,
    /// The group it was born into, where that may turn out to be frozen.
    watched: Option<Cgroup>,
}

/// Makes the process, which with `ordered` waits for its last order.
fn make(plan: &ExecPlan, io: ProcessIo, ordered: bool) -> Result<Made, LaunchError> {
    let target = process::pidfd_open(plan.target_pid).at(Stage::Clone, || {
        format!("open the container's process {}", plan.target_pid)
    })?;
    let (ours, theirs) = Channel::pair().at(Stage::Clone, || "make the channel".into())?;
    let mut inside = Some((theirs, io));
    let ordinary = is_ordinary()?;
    let users = is_foreign(plan.target_pid, NamespaceKind::User);
    // Else they are found out where they are joined.
    let foreign = users.then(|| foreign_namespaces(plan.target_pid));
    let foreign = foreign.unwrap_or(0);
    let entry = |join| Entry {
        target: target.as_fd(),
        join,
        users,
        scores: users || !ordered,
        ordered,
    };
    let mut born = |cgroup: Option<&Cgroup>| {
        let watched = cgroup.filter(|_| !plan.wait_while_frozen);
        let args = CloneArgs {
            cgroup: cgroup.map(AsFd::as_fd),
            ..CloneArgs::default()
        };
        let mut child = |join: i32| match inside.take() {
            Some((channel, io)) => run(plan, &entry(join), channel, &io),
            None => FAILED,
        };
        if users && ordinary {
            let first = foreign & (NamespaceKind::User.flag() | NamespaceKind::Pid.flag());
            users::usher_in(&args, watched, |channel| {
                enter_as_owner(target.as_fd(), first)?;
                users::clone_sibling(&SIBLING, channel, || child(foreign & !first))
            })
        } else if users {
            let child = || child(foreign & !NamespaceKind::Pid.flag());
            parent::clone_into(Some(target.as_fd()), &args, child).map(Born::from)
        } else {
            clone_unseen(plan, entry(0), (&args, watched), &mut inside)
        }
    };
    let mut cgroup = open_group(plan)?;
    let born = schedule::born_on(&plan.process.schedule, || match born(cgroup.as_ref()) {
        // The workload gave its group inner controllers, so no process may sit in it: join its init.
        Err(error)
            if error.errno == Some(libc::EBUSY) && cgroup.is_some() && !plan.cgroup_is_exact =>
        {
            let own = Cgroup::of_process(plan.target_pid).map_err(no_group)?;
            let born = born(Some(&own))?;
            cgroup = Some(own);
            Ok(born)
        }
        born => born,
    })?;
    drop(inside);
    crash_point!("exec: child cloned");
    Ok(Made {
        born,
        channel: ours,
        score: plan.process.oom_score_adj.filter(|_| ordered && !users),
        watched: cgroup.filter(|_| !plan.wait_while_frozen),
    })
}

fn open_group(plan: &ExecPlan) -> Result<Option<Cgroup>, LaunchError> {
    let opened = plan.cgroup.as_deref().map(Cgroup::open);
    opened.transpose().map_err(no_group)
}

fn no_group(error: CgroupError) -> LaunchError {
    LaunchError::from_chain(Stage::Cgroup, "open the group", &error)
}

/// Waits for the first sign of the child. One born into a frozen group gives none until somebody thaws
/// it, for which nobody may wait: after a second without a sign the group is looked at. A watch
/// passes on what it must meanwhile.
pub(super) fn await_life(
    channel: &Channel,
    cgroup: Option<&Cgroup>,
    watch: Option<&Watch>,
) -> Result<(), LaunchError> {
    const LOOK: Duration = Duration::from_secs(1);
    let Some(cgroup) = cgroup else {
        return Ok(());
    };
    loop {
        let heard = match watch {
            Some(watch) => watch.heard_within(channel, LOOK)?,
            None => parent::speaks_within(channel, LOOK)
                .at(Stage::Cgroup, || "hear from the child".into())?,
        };
        if heard {
            return Ok(());
        }
        if cgroup.frozen().unwrap_or(false) {
            let step = format!("start a process in `{}`", cgroup.path().display());
            return Err(LaunchError::refused(
                Stage::Cgroup,
                step,
                "the group is frozen",
            ));
        }
    }
}

/// Whether this process may not join what it does not own.
fn is_ordinary() -> Result<bool, LaunchError> {
    let present =
        creds::effective_capabilities().at(Stage::Clone, || "read the capabilities".into())?;
    Ok(present & capability::SYS_ADMIN == 0)
}

/// Whether the process is in another namespace of this kind than this one.
fn is_foreign(pid: i32, kind: NamespaceKind) -> bool {
    // By its name alone, such as `net:[4026531840]`: to follow the link makes an inode for it each time.
    let name = |of: &str| {
        let link = format!("/proc/{of}/ns/{}", kind.proc_name());
        rustix::fs::readlinkat(CWD, link, Vec::new()).ok()
    };
    name(&pid.to_string()) != name("self")
}

/// `CLONE_NEW*` bits of the namespaces in which the process is not together with this one: to join
/// one again may need rights that nobody has over it, and is an error for the user namespace (setns(2)).
fn foreign_namespaces(pid: i32) -> i32 {
    let all = NamespaceKind::ALL.iter();
    all.filter(|kind| is_foreign(pid, **kind))
        .fold(0, |flags, kind| flags | kind.flag())
}

/// Enters user and PID namespace together: an ordinary user has rights over the second only by
/// owning the first.
fn enter_as_owner(target: BorrowedFd<'_>, flags: i32) -> Result<(), LaunchError> {
    join::untraceable()?;
    ns::join(target, flags).at(Stage::Join, || {
        "join the container's user namespace".to_owned()
    })
}

/// Clones the child out of an usher that is in the container's namespaces already, so that it has
/// nothing of the host's from its first instruction on: a process of the container with
/// CAP_SYS_PTRACE in the same user namespace may look into it as soon as it sees it, traceable or
/// not (CVE-2016-9962).
fn clone_unseen(
    plan: &ExecPlan,
    entry: Entry<'_>,
    (args, watched): (&CloneArgs<'_>, Option<&Cgroup>),
    inside: &mut Option<(Channel, ProcessIo)>,
) -> Result<Born, LaunchError> {
    users::usher_in(args, watched, |channel| {
        let gone = || LaunchError::refused(Stage::Clone, "clone the child", "it was cloned before");
        let (theirs, io) = inside.take().ok_or_else(gone)?;
        let mut keep = vec![channel.as_fd(), theirs.as_fd(), entry.target];
        keep.extend(stdio::borrowed(&io));
        enter_ahead(plan, entry.target, &keep)?;
        users::clone_sibling(&SIBLING, channel, || run(plan, &entry, theirs, &io))
    })
}

fn enter_ahead(
    plan: &ExecPlan,
    target: BorrowedFd<'_>,
    keep: &[BorrowedFd<'_>],
) -> Result<(), LaunchError> {
    process::close_inherited_from(3 + plan.process.preserve_fds, keep)
        .at(Stage::Join, || "close the parent's descriptors".into())?;
    join::untraceable()?;
    join_all(plan.target_pid, target).at(Stage::Join, || "join the container's namespaces".into())
}

/// Joins the namespaces of a process that is in the same user namespace. Root may join one that it is in
/// already, so that mostly none needs to be looked at; for others, and kinds which the kernel lacks, the
/// names tell what is to be joined.
fn join_all(pid: i32, target: BorrowedFd<'_>) -> io::Result<()> {
    let kinds = NamespaceKind::ALL.iter();
    let but_user = kinds.filter(|kind| **kind != NamespaceKind::User);
    match ns::join(target, but_user.fold(0, |flags, kind| flags | kind.flag())) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) => {
            match foreign_namespaces(pid) {
                0 => Ok(()), // setns(2) takes at least one
                flags => ns::join(target, flags),
            }
        }
        done => done,
    }
}

/// The container that a process enters.
struct Entry<'a> {
    /// Its init.
    target: BorrowedFd<'a>,
    /// `CLONE_NEW*` bits of the namespaces which are still to be joined.
    join: i32,
    /// Whether it has a user namespace of its own.
    users: bool,
    /// Whether it sets its OOM score itself.
    scores: bool,
    /// Whether the program waits for an order: the parent watches this process, or looks at it first.
    ordered: bool,
}

fn run(plan: &ExecPlan, entry: &Entry<'_>, channel: Channel, io: &ProcessIo) -> i32 {
    let (error, channel) = match prepare(plan, entry, &channel, io) {
        Ok((program, last)) => Started {
            container: None,
            process: &plan.process,
            program,
            last,
            channel,
        }
        .exec(),
        Err(error) => (error, channel),
    };
    channel.tell_failure(error);
    FAILED
}

type Prepared = (std::ffi::CString, Option<berth_sys::creds::CapabilityMasks>);

fn prepare(
    plan: &ExecPlan,
    entry: &Entry<'_>,
    channel: &Channel,
    io: &ProcessIo,
) -> Result<Prepared, LaunchError> {
    let mut keep = vec![channel.as_fd(), entry.target];
    keep.extend(stdio::borrowed(io));
    process::close_inherited_from(3 + plan.process.preserve_fds, &keep)
        .at(Stage::Join, || "close the parent's descriptors".into())?;
    join::detach_from_parent(channel, plan.process.new_keyring)?;
    stdio::install(io).at(Stage::Join, || "install the standard streams".into())?;
    let score = plan.process.oom_score_adj.filter(|_| entry.scores);
    let proc = if entry.users || score.is_some() || plan.process.is_labelled() {
        ProcFs::of_processes().at(Stage::Join, || "open a private procfs".into())?
    } else {
        ProcFs::none()
    };
    if let Some(adjust) = score {
        join::set_oom_score(&proc, adjust, channel)?;
    }
    if entry.join != 0 {
        ns::join(entry.target, entry.join)
            .at(Stage::Join, || "join the container's namespaces".into())?;
    }
    if entry.users {
        join::become_root(&proc)?;
    }
    rootfs::enter_present_root(channel, io, &plan.process)?;
    schedule::settle_on(plan.process.schedule.final_cpus.as_ref())?;
    let last = confine::confine(&plan.process, &proc, channel)?;
    let program = find_program(&plan.process)?;
    if entry.ordered {
        await_order(channel)?;
    }
    Ok((program, last))
}

/// Waits for the parent, which by then watches this process or has looked at it.
fn await_order(channel: &Channel) -> Result<(), LaunchError> {
    let step = || "wait for the order".to_owned();
    channel
        .send(&ChildToParent::Ready(Timings::default()), &[])
        .at(Stage::AwaitStart, step)?;
    match channel
        .recv::<ParentToChild>()
        .at(Stage::AwaitStart, step)?
    {
        Some((ParentToChild::Start, _)) => Ok(()),
        _ => Err(LaunchError::refused(
            Stage::AwaitStart,
            step(),
            "the parent is gone",
        )),
    }
}
