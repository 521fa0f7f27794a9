//! Stage 2 of the child: the root file system.
//!
//! On entry: in the container's namespaces, with the host's mounts still visible in the copied
//! mount table. On exit: the root is the container's, the host's mounts are gone, the working
//! directory is the container's root. pivot_root(2) needs the new root attached in this mount
//! namespace, so everything is mounted onto it after that, through its descriptor.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::mount::{self, AttributeChange, Propagation, attr};
use berth_sys::ns::NamespaceKind;
use berth_sys::pty;
use berth_sys::root::RootDir;
use rustix::fs::{CWD, Mode, OFlags};

use super::confine::Pivoted;
use super::error::At;
use super::join::Session;
use super::protocol::{Channel, ChildToParent};
use super::{LaunchError, ProcessIo, Stage, join, stdio};
use crate::plan::ProcessPlan;
use crate::procfs::ProcFs;
use crate::rootfs::{self, Assembly, Origin};
use crate::state::Status;

/// The child in its namespaces.
#[derive(Debug)]
pub(super) struct InNamespaces<'a> {
    pub(super) session: Session<'a>,
    pub(super) proc: ProcFs,
    pub(super) origin: Origin,
}

impl<'a> InNamespaces<'a> {
    pub(super) fn build_rootfs(self) -> Result<Pivoted<'a>, LaunchError> {
        let InNamespaces {
            mut session,
            proc,
            origin,
        } = self;
        if session.plan.joins(NamespaceKind::Mount) {
            let hooks = &session.plan.hooks.create_container;
            join::run_hooks(hooks, session.plan, Status::Creating)?;
            enter_present_root(&session.channel, &session.io, &session.plan.process)?;
            return Ok(Pivoted { session, proc });
        }
        let plan = &session.plan.rootfs;
        let mut assembly = Assembly::start(plan, origin.sources(plan)?)?;
        assembly.mount_all()?;
        assembly.make_devices()?;
        if let ProcessIo::Terminal { size } = session.io {
            let terminal = assembly.open_terminal()?;
            hand_over_terminal(
                &session.channel,
                &terminal,
                size.or(session.plan.process.console_size),
            )?;
            assembly.bind_console(&terminal.slave)?;
        }
        assembly.make_working_directory(&session.plan.process.cwd)?;
        assembly.protect_paths()?;
        let root = assembly.finish();
        if plan.readonly {
            let change = AttributeChange {
                set: attr::RDONLY,
                ..AttributeChange::default()
            };
            mount::set_attributes(&root, change, false)
                .at(Stage::Rootfs, || "make the root read-only".into())?;
        }
        rustix::process::fchdir(&root).at(Stage::Rootfs, || "go to the new root".into())?;
        join::run_hooks(
            &session.plan.hooks.create_container,
            session.plan,
            Status::Creating,
        )?;
        if plan.no_pivot {
            mount::change_root(&root).at(Stage::Rootfs, || "change the root".into())?;
        } else {
            mount::pivot_into(&root).at(Stage::Rootfs, || "pivot into the new root".into())?;
        }
        set_root_propagation(&root, plan.propagation)?;
        rootfs::enter_working_directory(&root, &session.plan.process.cwd)?;
        session.laps.end(Stage::Rootfs);
        Ok(Pivoted { session, proc })
    }
}

/// Takes the root of a mount namespace that was joined as it is: a terminal of its devpts, and the
/// working directory in it.
pub(super) fn enter_present_root(
    channel: &Channel,
    io: &ProcessIo,
    process: &ProcessPlan,
) -> Result<(), LaunchError> {
    let step = || "open the container's root".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty()).at(Stage::Join, step)?;
    if let ProcessIo::Terminal { size } = io {
        let root = RootDir::from(root.try_clone().at(Stage::Join, step)?);
        let terminal = rootfs::open_terminal(&root)?;
        hand_over_terminal(channel, &terminal, size.or(process.console_size))?;
    }
    rootfs::enter_working_directory(&root, &process.cwd)
}

fn set_root_propagation(root: &OwnedFd, propagation: Propagation) -> Result<(), LaunchError> {
    if matches!(propagation, Propagation::Private | Propagation::Slave) {
        return Ok(()); // it is, since the assembly started
    }
    let change = AttributeChange {
        propagation: Some(propagation),
        ..AttributeChange::default()
    };
    mount::set_attributes(root, change, false)
        .at(Stage::Rootfs, || "set the root's propagation".into())
}

/// Sizes the terminal, sends its master side to the parent, and takes its slave side as own terminal.
pub(super) fn hand_over_terminal(
    channel: &Channel,
    terminal: &pty::Pair,
    size: Option<(u16, u16)>,
) -> Result<(), LaunchError> {
    if let Some((rows, cols)) = size {
        pty::resize(&terminal.master, rows, cols)
            .at(Stage::Rootfs, || "set the terminal's size".into())?;
    }
    channel
        .send(&ChildToParent::Console, &[terminal.master.as_fd()])
        .at(Stage::Rootfs, || "hand the terminal to the parent".into())?;
    stdio::install_terminal(&terminal.slave).at(Stage::Rootfs, || "take the terminal".into())
}
