//! From a plan to a process: clone, stages of the child, and the talk between the two.
//!
//! Every arrow consumes the stage before, so what a stage owns is closed when it is over:
//!
//! ```text
//! Joining ─enter▶ InNamespaces ─build_rootfs▶ Pivoted ─confine▶ Confined ─await_start▶ Started ─exec▶ the program
//! ```

mod clocks;
mod confine;
mod error;
mod exec;
mod gate;
mod group;
mod join;
mod joins;
mod laps;
mod netdev;
mod notify;
mod own_ids;
mod parent;
mod pod;
mod protocol;
mod rootfs;
mod schedule;
mod session;
mod stdio;
mod users;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::process::{self, Child};

pub(crate) use error::At;
pub use error::{LaunchError, Stage};
pub use gate::{Gate, open_gate, open_gate_verified};
pub use laps::Timings;

use crate::cgroup::NotEnforced;
use crate::plan::{ExecPlan, Plan, PodPlan};
use crate::record::{Record, Refused, Requested, Watch};
use protocol::Channel;

/// Where the standard streams of a process go.
#[derive(Debug)]
pub enum ProcessIo {
    /// To these descriptors.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// To a new terminal, whose master side the caller gets.
    Terminal {
        /// Rows and columns; none takes the spec's `consoleSize`.
        size: Option<(u16, u16)>,
    },
}

/// A container whose first process waits, fully set up, for the order to start.
/// Dropping it without [`Created::start`] or [`Created::leave`] kills and collects the process.
#[derive(Debug)]
pub struct Created {
    child: Option<Child>,
    channel: Channel,
    console: Option<OwnedFd>,
    degraded: Vec<String>,
    not_enforced: Vec<NotEnforced>,
    timings: Timings,
}

impl Created {
    fn new(
        child: Child,
        channel: Channel,
        report: parent::Report,
        not_enforced: Vec<NotEnforced>,
    ) -> Created {
        let parent::Report {
            console,
            degraded,
            timings,
        } = report;
        Created {
            child: Some(child),
            channel,
            console,
            degraded,
            not_enforced,
            timings,
        }
    }

    fn child(&self) -> &Child {
        self.child
            .as_ref()
            .expect("only start, leave and drop take the child, and they end its owner")
    }

    /// Process id of the container's init, in the caller's PID namespace.
    pub fn pid(&self) -> i32 {
        self.child().pid()
    }

    /// Readable once init has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child().pidfd()
    }

    /// The master side of the container's terminal, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// What could not be done as asked for lack of privilege, and did not need to be.
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// Limits which the host's cgroups do not enforce.
    pub fn not_enforced(&self) -> &[NotEnforced] {
        &self.not_enforced
    }

    /// How long each part took.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Lets the process run the container's program. Returns when it was executed; after a failure
    /// the process is gone and collected.
    pub fn start(mut self) -> Result<Running, LaunchError> {
        gate::order_start(&self.channel)?;
        Ok(self.release())
    }

    /// As [`Created::start`], comparing the process with what was asked before its program's first
    /// instruction.
    ///
    /// # Errors
    /// Those of [`Created::start`], and the differences found; the program then never runs.
    pub fn start_verified(mut self, requested: Requested) -> Result<(Running, Record), Refused> {
        let watch = Watch::begin(self.pid(), requested)?;
        let record = gate::order_verified(&self.channel, watch)?;
        Ok((self.release(), record))
    }

    /// Leaves the process waiting at its [`Gate::Socket`]; the caller goes its own way, which it may
    /// once it has written down who the process is.
    pub fn leave(mut self) -> Result<Running, LaunchError> {
        let left = self.channel.send(&protocol::ParentToChild::Leave, &[]);
        left.at(Stage::AwaitStart, || "leave the child".into())?;
        Ok(self.release())
    }

    fn release(&mut self) -> Running {
        Running::from(
            self.child
                .take()
                .expect("only start, leave and drop take the child, and they end its owner"),
        )
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = process::pidfd_send_signal(child.pidfd(), libc::SIGKILL);
            let _ = process::wait(child.pidfd());
        }
    }
}

/// A running process of a container.
#[derive(Debug)]
pub struct Running {
    /// Its process id in the caller's PID namespace.
    pub pid: i32,
    /// Readable once it has ended; wait for it with [`berth_sys::process::wait`].
    pub pidfd: OwnedFd,
}

impl Running {
    /// Kills and collects it, for a caller that cannot keep it.
    pub fn end(&self) {
        // Either fails only when it has ended and is collected.
        let _ = process::pidfd_send_signal(&self.pidfd, libc::SIGKILL);
        let _ = process::wait(&self.pidfd);
    }
}

impl From<Child> for Running {
    fn from(child: Child) -> Running {
        Running {
            pid: child.pid(),
            pidfd: child.into_pidfd(),
        }
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A further process that was verified.
#[derive(Debug)]
pub struct Executed {
    /// It.
    pub running: Running,
    /// The master side of its terminal, if it has one.
    pub console: Option<OwnedFd>,
    /// What was asked next to what it got.
    pub record: Record,
}

/// A container that was verified and runs.
#[derive(Debug)]
pub struct Verified {
    /// Its first process.
    pub running: Running,
    /// The master side of its terminal, if it has one.
    pub console: Option<OwnedFd>,
    /// What was asked next to what it got.
    pub record: Record,
    /// Limits which the host's cgroups do not enforce.
    pub not_enforced: Vec<NotEnforced>,
}

/// Makes the container of `plan` and lets its program run, in one go. `asked` is what to compare it
/// with before the program's first instruction; it is called while the container is being made.
///
/// # Errors
/// What cannot be made, and the differences found. Then nothing is left of it.
pub fn start_verified(
    plan: &Plan,
    io: ProcessIo,
    asked: impl FnOnce() -> Requested,
) -> Result<Verified, Refused> {
    parent::start_verified(plan, io, asked)
}

/// Makes the container of `plan` up to the point where only its program remains to be executed.
pub fn create(plan: &Plan, io: ProcessIo) -> Result<Created, LaunchError> {
    parent::create(plan, io, Gate::Parent)
}

/// As [`create`], with the order to start coming through `gate`.
pub fn create_at(plan: &Plan, io: ProcessIo, gate: Gate) -> Result<Created, LaunchError> {
    parent::create(plan, io, gate)
}

/// Starts one more process in a running container; with a terminal, also returns its master side.
pub fn exec(plan: &ExecPlan, io: ProcessIo) -> Result<(Running, Option<OwnedFd>), LaunchError> {
    session::exec(plan, io)
}

/// As [`exec`], comparing the process with what was asked before its program's first instruction.
///
/// # Errors
/// Those of [`exec`], and the differences found; the program then never runs.
pub fn exec_verified(
    plan: &ExecPlan,
    io: ProcessIo,
    requested: Requested,
) -> Result<Executed, Refused> {
    session::exec_verified(plan, io, requested)
}

/// Starts the pause process of a pod in its new namespaces.
pub fn pod(plan: &PodPlan) -> Result<Running, LaunchError> {
    pod::start(plan)
}
