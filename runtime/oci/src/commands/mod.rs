//! One OCI verb a file; what they share is here.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod failure;
mod features;
mod foreground;
mod handover;
mod home;
mod kill;
mod list;
mod owner;
mod pause;
mod ps;
mod record;
mod rootless;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_oci::cgroup::Cgroup;
use berth_oci::hooks;
use berth_oci::plan::{CgroupMode, Hooks, Plan, RootfsSource, Source};
use berth_oci::spec::{self as oci, config::Spec};
use berth_oci::state::{Record, Status, Store};

pub use failure::Failure;

use crate::cli::{self, Cli, Command};
use crate::log::Log;
use record::Records;

/// Performs the verb.
pub fn run(cli: &Cli, log: &Log) -> Result<ExitCode, Failure> {
    let root = match rootless::state_root(&cli.global) {
        Err(_) if !cli.command.uses_state() => PathBuf::new(),
        root => root?,
    };
    log.debug(|| format!("state directory `{}`, {:?}", root.display(), cli.command));
    let store = Store::new(root);
    let records = &mut Records::open(cli.global.record.as_deref())?;
    match &cli.command {
        Command::Create(args) => create::run(&cli.global, &store, args, log),
        Command::Start(args) => start::run(&store, &args.id, records, log),
        Command::Run(args) => run::run(&cli.global, &store, args, records, log),
        Command::State(args) => state::run(&store, &args.id),
        Command::Kill(args) => kill::run(&store, args),
        Command::Delete(args) => delete::run(&store, &args.id, args.force, log),
        Command::List(args) => list::run(&store, args, log),
        Command::Exec(args) => exec::run(&store, args, records, log),
        Command::Pause(args) => pause::run(&store, &args.id, true),
        Command::Resume(args) => pause::run(&store, &args.id, false),
        Command::Ps(args) => ps::run(&store, args),
        Command::Update(args) => update::run(&store, args, records, log),
        Command::Events(args) => events::run(&store, args),
        Command::Spec(args) => spec::run(args),
        Command::Features(_) => features::run(),
        Command::Checkpoint(_) => checkpoint::refuse("checkpoint"),
        Command::Restore(_) => checkpoint::refuse("restore"),
        Command::Completion(args) => {
            print!("{}", cli::script(args.shell));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The spec as it was at `create`, with the limits of later updates.
fn kept_spec(store: &Store, id: &str) -> Result<Spec, Failure> {
    let bytes = store.get(id, "config.json")?;
    Ok(oci::parse(&bytes, Path::new("config.json"))?)
}

/// The hooks of the container's kept spec, and the state that they read.
fn late_hooks(store: &Store, record: &Record, status: Status) -> Result<(Hooks, Vec<u8>), Failure> {
    if !record.late_hooks {
        return Ok((Hooks::default(), Vec::new()));
    }
    let spec = kept_spec(store, &record.id)?;
    let source = Source {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        rootfs: RootfsSource::Path(record.rootfs.clone()),
        cgroup: CgroupMode::Disabled,
    };
    let plan = Plan::from_spec(&spec, &source)?;
    let state = hooks::state(&plan, status, record.pid as u32);
    Ok((plan.hooks, state))
}

/// Runs all poststop hooks; what fails is only told (runtime.md, "Lifecycle", 13).
fn poststop(store: &Store, record: &Record, log: &Log) {
    match late_hooks(store, record, Status::Stopped) {
        Ok((hooks, state)) => {
            for failure in hooks::run_all(&hooks.poststop, &state, &record.bundle) {
                log.warn(&failure::chain(&failure));
            }
        }
        Err(failure) => log.warn(&failure.to_string()),
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
