//! A container with a user namespace: the process between parent and child.
//!
//! Whoever enters a user namespace does not get back (setns(2)), and rights over layers, bind
//! sources, hard limits and the OOM score end at its border. So a short-lived process goes ahead:
//!
//! ```text
//! parent ─clone─▶ usher   in a mount namespace of its own, with the parent's rights:
//!                   │     makes or opens the user namespace, opens the sources (stage 1 of the root)
//!                   │     joins: what is the host's, the user namespace, what belongs to that
//!                   └─clone─▶ child   a child of the parent; its new namespaces belong to the user namespace
//! ```
//!
//! It hands the child's pidfd to the parent and ends, while the child goes on. An ordinary user has no such rights: then the
//! usher stays in the mount namespace that it was born in, and the child opens the sources itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::idmap;
use berth_sys::ns::{self, NamespaceKind};
use berth_sys::process::{self, Child, CloneArgs};
use berth_sys::{creds, idmap::IdMap};

use super::error::At;
use super::join::{self, Session};
use super::joins::{self, Joins};
use super::protocol::{Channel, ChildToParent};
use super::{LaunchError, Stage, own_ids, parent, session, stdio};
use crate::capability;
use crate::cgroup::Cgroup;
use crate::plan::{IdMaps, Plan, ProcessPlan};
use crate::procfs::ProcFs;
use crate::rootfs::{MapNamespaces, Origin, Sources};

/// Exit code of a process which failed before its program ran.
const FAILED: i32 = 1;

/// A child, and the process that went ahead of it, if one did.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) child: Child,
    pub(super) usher: Option<Usher>,
}

impl From<Child> for Born {
    fn from(child: Child) -> Born {
        Born { child, usher: None }
    }
}

/// A process between parent and child that has done its part. Its end is nobody's hurry: it is
/// collected when this is dropped.
#[derive(Debug)]
pub(super) struct Usher(Child);

impl Drop for Usher {
    fn drop(&mut self) {
        // Its group may be frozen by now; then only this ends it.
        let _ = process::pidfd_send_signal(self.0.pidfd(), libc::SIGKILL);
        let _ = process::wait(self.0.pidfd());
    }
}

/// Clones the child of `session` by way of an usher born into `cgroup`.
pub(super) fn clone_child(
    session: Session<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Born, LaunchError> {
    let joins = Joins::open(&session.plan.namespaces.join)?;
    let present =
        creds::effective_capabilities().at(Stage::Clone, || "read the capabilities".into())?;
    let privileged = present & capability::SYS_ADMIN != 0;
    let args = CloneArgs {
        namespaces: if privileged {
            NamespaceKind::Mount.flag()
        } else {
            0
        },
        cgroup,
        sibling: false,
    };
    usher_in(&args, None, |channel| {
        usher(session, joins, privileged, channel)
    })
}

/// Runs `usher` in a process of its own, which clones the child and tells so over the channel. It
/// is not waited for in `watched` while that is frozen.
pub(super) fn usher_in(
    args: &CloneArgs<'_>,
    watched: Option<&Cgroup>,
    usher: impl FnOnce(&Channel) -> Result<(), LaunchError>,
) -> Result<Born, LaunchError> {
    let (ours, theirs) = Channel::pair().at(Stage::Clone, || "make the channel".into())?;
    let mut inside = Some((theirs, usher));
    let between = process::clone_with(args, || {
        let Some((channel, usher)) = inside.take() else {
            return FAILED;
        };
        let done = usher(&channel);
        // Without a listener there is nobody left to tell.
        let told = done.or_else(|error| channel.send(&ChildToParent::Failed(error), &[]));
        told.map_or(FAILED, |()| 0)
    });
    let between = between.at(Stage::Clone, || "clone the usher".into())?;
    drop(inside);
    match session::await_life(&ours, watched, None).and_then(|()| hear_of_child(&ours)) {
        Ok(child) => Ok(Born {
            child,
            usher: Some(Usher(between)),
        }),
        Err(error) => Err(parent::reap(between, error)),
    }
}

fn hear_of_child(channel: &Channel) -> Result<Child, LaunchError> {
    let step = || "hear from the usher".to_owned();
    match channel.recv().at(Stage::Clone, step)? {
        Some((ChildToParent::Born(pid), mut fds)) if fds.len() == 1 => {
            Ok(Child::adopted(pid, fds.remove(0)))
        }
        Some((ChildToParent::Failed(error), _)) => Err(error),
        _ => Err(LaunchError::refused(Stage::Clone, step(), "it ended early")),
    }
}

/// The usher's whole life.
fn usher(
    session: Session<'_>,
    joins: Joins,
    privileged: bool,
    channel: &Channel,
) -> Result<(), LaunchError> {
    let plan = session.plan;
    let namespace = user_namespace(plan)?;
    let maps = MapNamespaces::make(&plan.rootfs.mounts, Some(namespace.as_fd()))?;
    let origin = if privileged {
        give_what_only_the_host_can(&session)?;
        let users = (namespace.as_fd(), &plan.namespaces.ids);
        match plan.joins(NamespaceKind::Mount) {
            true => Origin::Here(maps), // nothing will be mounted
            false => Origin::Opened(Sources::open(&plan.rootfs, &maps, Some(users))?),
        }
    } else {
        Origin::Here(maps)
    };
    if !joins.is_empty() {
        // From here on processes of other containers may see this one, and its child (CVE-2016-9962).
        join::untraceable()?;
    }
    let joined = plan.joins(NamespaceKind::User);
    joins.enter()?;
    if joined {
        check_maps(&plan.namespaces.ids)?;
    } else {
        ns::join(&namespace, NamespaceKind::User.flag())
            .at(Stage::Join, || "enter the user namespace".into())?;
    }
    drop(namespace);
    let args = CloneArgs {
        namespaces: parent::made_by_clone(plan),
        cgroup: None, // the usher's own
        sibling: true,
    };
    clone_sibling(&args, channel, || {
        parent::run(session, Joins::default(), origin)
    })
}

/// Clones the child as one of the parent's, and tells the parent who it is.
pub(super) fn clone_sibling(
    args: &CloneArgs<'_>,
    channel: &Channel,
    child: impl FnOnce() -> i32,
) -> Result<(), LaunchError> {
    let child = process::clone_with(args, child).at(Stage::Clone, || "clone the child".into())?;
    channel
        .send(&ChildToParent::Born(child.pid()), &[child.pidfd()])
        .at(Stage::Clone, || "tell of the child".into())
}

/// Makes the user namespace of the plan, or opens the one to join.
fn user_namespace(plan: &Plan) -> Result<OwnedFd, LaunchError> {
    let mut join = plan.namespaces.join.iter();
    match join.find(|(kind, _)| *kind == NamespaceKind::User) {
        Some((kind, path)) => joins::open(*kind, path),
        None => {
            let ids = &plan.namespaces.ids;
            let step = || "make the user namespace".to_owned();
            let present = creds::effective_capabilities().at(Stage::Join, step)?;
            if present & capability::SET_IDS == capability::SET_IDS {
                return idmap::user_namespace(&ids.uids, &ids.gids).at(Stage::Join, step);
            }
            idmap::user_namespace_by(|holder| own_ids::write(holder, ids))
        }
    }
}

/// What the kernel grants only to the host's root: the child inherits it.
fn give_what_only_the_host_can(session: &Session<'_>) -> Result<(), LaunchError> {
    let process = &session.plan.process;
    if let Some(adjust) = process.oom_score_adj {
        let proc = ProcFs::open().at(Stage::Join, || "open a private procfs".into())?;
        join::set_oom_score(&proc, adjust, &session.channel)?;
    }
    raise_ceilings(process)?;
    match idmap::outside(&session.plan.namespaces.ids.uids, process.uid) {
        Some(uid) => stdio::give_all(&stdio::borrowed(&session.io), uid)
            .at(Stage::Join, || "give the streams to the user".into()),
        None => Ok(()), // the map of a joined namespace, not told
    }
}

/// Hard limits above the present ones. Where the right to that lacks, the child says so.
fn raise_ceilings(process: &ProcessPlan) -> Result<(), LaunchError> {
    for limit in &process.rlimits {
        let (soft, hard) =
            creds::rlimit(limit.resource).at(Stage::Join, || format!("read {}", limit.name))?;
        if limit.hard > hard {
            let _ = creds::set_rlimit(limit.resource, soft, limit.hard);
        }
    }
    Ok(())
}

/// The maps of a joined user namespace must be those which the spec gives, if it does.
fn check_maps(ids: &IdMaps) -> Result<(), LaunchError> {
    let proc = ProcFs::mounted().at(Stage::Join, || "open `/proc`".into())?;
    for (file, field, wanted) in [
        ("self/uid_map", "linux.uidMappings", &ids.uids),
        ("self/gid_map", "linux.gidMappings", &ids.gids),
    ] {
        let step = || format!("compare {field} with the joined user namespace");
        let text = proc.read(file.as_ref()).at(Stage::Join, step)?;
        if !wanted.is_empty() && sorted(parse(&text)) != sorted(wanted.clone()) {
            let why = "it has other maps";
            return Err(LaunchError::refused(Stage::Join, step(), why));
        }
    }
    Ok(())
}

/// The lines of a map file, as the kernel prints them.
fn parse(text: &str) -> Vec<IdMap> {
    let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(IdMap {
            inside: number(words.next())?,
            outside: number(words.next())?,
            length: number(words.next())?,
        })
    });
    lines.collect()
}

fn sorted(mut map: Vec<IdMap>) -> Vec<IdMap> {
    map.sort_by_key(|line| line.inside);
    map
}
