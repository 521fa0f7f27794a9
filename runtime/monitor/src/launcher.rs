//! The seam between the monitor and whoever makes containers.

pub mod command;
pub mod native;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_oci::cgroup::CgroupError;
use berth_oci::launch::{LaunchError, ProcessIo};
use berth_oci::record::{Record, Refused};
use berth_oci::spec::config::Process;
use berth_oci::spec::{LoadError, SpecErrors};
use serde_json::value::{RawValue, to_raw_value};

use crate::protocol::LaunchContainer;
use crate::stdio::Ends;

/// Makes containers and further processes in them.
pub trait Launcher {
    /// Creates and starts a container.
    fn start(&self, container: &LaunchContainer) -> Result<Started, LaunchFailure>;

    /// Starts one more process.
    fn exec(
        &self,
        target: &Target<'_>,
        process: &Process,
        io: ProcessIo,
    ) -> Result<Executed, LaunchFailure>;

    /// Undoes what [`Launcher::start`] left on the host, after init has ended; the cgroup excepted.
    fn delete(&self, id: &str) -> Result<(), LaunchFailure>;
}

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    /// Process id of init.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The monitor's ends of its streams.
    pub ends: Ends,
    /// Absolute path of the container's own cgroup.
    pub cgroup: Option<PathBuf>,
    /// When it was let go, nanoseconds since 1970.
    pub started_at: i64,
    /// Limits that this host does not enforce.
    pub not_enforced: Vec<String>,
    /// Mount point of the root file system in the host's table.
    pub mounted: Option<PathBuf>,
    /// The sandbox record of its init.
    pub record: Option<Box<RawValue>>,
}

/// The container in which to start one more process.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Container id.
    pub id: &'a str,
    /// Its bundle directory.
    pub bundle: &'a Path,
    /// Process id of its init.
    pub pid: i32,
    /// Absolute path of the cgroup for the new process.
    pub cgroup: Option<&'a Path>,
}

/// A further process that runs.
#[derive(Debug)]
pub struct Executed {
    /// Process id.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
    /// Its sandbox record.
    pub record: Option<Box<RawValue>>,
}

/// Why a container or process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchFailure {
    /// The bundle's configuration cannot be read.
    #[error("cannot load the container's configuration")]
    Load(#[source] LoadError),
    /// It asks for what cannot be honoured.
    #[error("the container's configuration is refused")]
    Spec(#[source] SpecErrors),
    /// The request and the configuration disagree.
    #[error("tty is {request} in the request and {spec} in the configuration")]
    Terminal {
        /// The request's value.
        request: bool,
        /// `process.terminal`.
        spec: bool,
    },
    /// The streams cannot be made.
    #[error("cannot make the standard streams")]
    Stdio(#[source] io::Error),
    /// The cgroup hierarchy cannot be used.
    #[error("cannot use cgroups")]
    Cgroup(#[source] CgroupError),
    /// The other runtime's bundle cannot be made or undone.
    #[error("cannot prepare the bundle")]
    Bundle(#[source] command::BundleError),
    /// The other runtime's program failed.
    #[error("{0}")]
    Program(command::ProgramError),
    /// The runtime failed.
    #[error("{0}")]
    Runtime(LaunchError),
    /// The kernel did not give what was asked for, so the program did not run.
    #[error("{error}")]
    Differs {
        /// What differs.
        error: LaunchError,
        /// The sandbox record that tells it.
        record: Option<Box<RawValue>>,
    },
    /// The runtime made no terminal although asked.
    #[error("the runtime returned no terminal")]
    NoConsole,
}

impl LaunchFailure {
    /// What kept the program from running, with the record where it is the reason.
    fn refused(refused: Refused) -> LaunchFailure {
        match refused.record {
            None => Self::Runtime(refused.error),
            Some(record) => Self::Differs {
                error: refused.error,
                record: json(&record),
            },
        }
    }

    /// The sandbox record of what differs from what was asked.
    pub fn record(&self) -> Option<&RawValue> {
        match self {
            Self::Differs { record, .. } => record.as_deref(),
            _ => None,
        }
    }

    /// True when trying the same again cannot help.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self,
            Self::Load(_)
                | Self::Spec(_)
                | Self::Terminal { .. }
                | Self::Bundle(
                    command::BundleError::Config { .. } | command::BundleError::Terminal(..)
                )
        )
    }
}

/// `record` as it goes to the daemon.
fn json(record: &Record) -> Option<Box<RawValue>> {
    to_raw_value(record).ok() // fails only for map keys that are no strings: there are none
}
