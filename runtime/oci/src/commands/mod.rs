//! One OCI verb a file; what they share is here.

mod create;
mod delete;
mod exec;
mod features;
mod foreground;
mod kill;
mod list;
mod ps;
mod run;
mod spec;
mod start;
mod state;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use berth_oci::cgroup::{Cgroup, CgroupError};
use berth_oci::hooks::{self, HookError};
use berth_oci::launch::LaunchError;
use berth_oci::plan::{CgroupMode, Hook, Hooks, Plan, RootfsSource, Source};
use berth_oci::spec::{self as oci, LoadError, SpecErrors};
use berth_oci::state::{Record, StateError, Status, Store};

use crate::cli::{Cli, Command};
use crate::log::Log;

/// Why a verb failed, as the user reads it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The bundle's config.json cannot be loaded.
    #[error("{}", chain(.0))]
    Load(#[from] LoadError),
    /// The spec is wrong or asks for what is not supported.
    #[error("invalid spec: {0}")]
    Spec(#[from] SpecErrors),
    /// The container's state.
    #[error("{}", chain(.0))]
    State(#[from] StateError),
    /// Making the container or its process.
    #[error("{0}")]
    Launch(#[from] LaunchError),
    /// Making a further process in a container: exit code 255 tells it from the process's own.
    #[error("exec failed: {0}")]
    Exec(LaunchError),
    /// A hook of the spec.
    #[error("{}", chain(.0))]
    Hook(#[from] HookError),
    /// The container's cgroup.
    #[error("{}", chain(.0))]
    Cgroup(#[from] CgroupError),
    /// The verb does not fit the container's status.
    #[error("cannot {verb} container `{id}`: it is {}", status.as_str())]
    WrongStatus {
        /// What was asked.
        verb: &'static str,
        /// Of which container.
        id: String,
        /// Its status.
        status: Status,
    },
    /// An argument that means nothing.
    #[error("{0}")]
    Usage(String),
    /// A file of the host.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, with the object.
        action: String,
        /// Why.
        source: io::Error,
    },
}

impl Failure {
    /// The exit code engines expect: 255 from a failed exec, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Exec(_) => ExitCode::from(255),
            _ => ExitCode::FAILURE,
        }
    }

    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure::Io {
            action: action.into(),
            source,
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Performs the verb.
pub fn run(cli: &Cli, log: &Log) -> Result<ExitCode, Failure> {
    let store = Store::new(std::path::absolute(&cli.root).map_err(Failure::io("resolve --root"))?);
    match &cli.command {
        Command::Create(args) => create::run(cli, &store, args, log),
        Command::Start(args) => start::run(&store, &args.id, log),
        Command::Run(args) => run::run(cli, &store, args, log),
        Command::State(args) => state::run(&store, &args.id),
        Command::Kill(args) => kill::run(&store, args),
        Command::Delete(args) => delete::run(&store, &args.id, args.force, log),
        Command::List(args) => list::run(&store, args),
        Command::Exec(args) => exec::run(&store, args, log),
        Command::Pause(args) => freeze(&store, &args.id, true),
        Command::Resume(args) => freeze(&store, &args.id, false),
        Command::Ps(args) => ps::run(&store, args),
        Command::Spec(args) => spec::run(args),
        Command::Features => features::run(),
    }
}

fn freeze(store: &Store, id: &str, frozen: bool) -> Result<ExitCode, Failure> {
    let _lock = store.lock(id)?;
    let record = store.load(id)?;
    let status = store.status(&record)?;
    let (verb, fits) = match frozen {
        true => ("pause", matches!(status, Status::Running | Status::Created)),
        false => ("resume", status == Status::Paused),
    };
    if !fits {
        return Err(Failure::WrongStatus {
            verb,
            id: id.to_owned(),
            status,
        });
    }
    cgroup(&record)?.freeze(frozen)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the hooks that `choose` picks from the container's kept spec. By the specification a failure
/// is only reported.
fn late_hooks(
    store: &Store,
    record: &Record,
    status: &str,
    log: &Log,
    choose: fn(&Hooks) -> &[Hook],
) {
    let run = || -> Result<(), Failure> {
        let bytes = store.get(&record.id, "config.json")?;
        let spec = oci::parse(&bytes, Path::new("config.json"))?;
        if spec.hooks().is_none() {
            return Ok(());
        }
        let source = Source {
            id: record.id.clone(),
            bundle: record.bundle.clone(),
            rootfs: RootfsSource::Path(record.rootfs.clone()),
            cgroup: CgroupMode::Disabled,
        };
        let plan = Plan::from_spec(&spec, &source)?;
        let state = hooks::state(&plan, status, record.pid as u32);
        Ok(hooks::run(choose(&plan.hooks), &state)?)
    };
    if let Err(failure) = run() {
        log.warn(&failure.to_string());
    }
}

fn cgroup(record: &Record) -> Result<Cgroup, Failure> {
    match &record.cgroup {
        Some(path) => Ok(Cgroup::open(path)?),
        None => Err(Failure::Usage(format!(
            "container `{}` has no cgroup",
            record.id
        ))),
    }
}
