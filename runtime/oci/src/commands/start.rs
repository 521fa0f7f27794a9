//! `start`: lets a created container execute its program.

use std::process::ExitCode;

use berth_oci::hooks;
use berth_oci::launch::{Created, Running, Stage};
use berth_oci::state::{Record, Status, Store};
use berth_sys::crash_point;

use super::record::Records;
use super::{Failure, delete, late_hooks};
use crate::log::Log;

pub(super) fn run(
    store: &Store,
    id: &str,
    records: &mut Records,
    log: &Log,
) -> Result<ExitCode, Failure> {
    let _lock = store.lock(id)?;
    start(store, id, records, log)?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a container that the caller has locked. A failing hook ends the container, with nothing
/// left of it (runtime.md, "Lifecycle", 7 and 9).
pub(super) fn start(
    store: &Store,
    id: &str,
    records: &mut Records,
    log: &Log,
) -> Result<(), Failure> {
    let record = store.load(id)?;
    let status = store.status(&record)?;
    if status != Status::Created {
        return Err(Failure::wrong_status("start", id, status));
    }
    let hooks_ran = match records.start(store, &record) {
        Ok(()) => {
            crash_point!("start: program executed");
            store.started(id)?;
            crash_point!("start: state written");
            run_poststart(store, &record)
        }
        Err(Failure::Launch(error)) if error.stage == Stage::Hook => Err(error.into()),
        Err(failure) => return Err(failure),
    };
    hooks_ran.inspect_err(|_| {
        // Why the hook failed is what the caller needs.
        if let Err(failure) = delete::delete(store, id, true, log) {
            log.warn(&failure.to_string());
        }
    })
}

/// Starts a container that the caller made, has locked and still holds.
pub(super) fn start_held(
    store: &Store,
    created: Created,
    record: &Record,
    records: &mut Records,
) -> Result<Running, Failure> {
    let running = records.start_held(store, created, &record.id)?;
    crash_point!("start: program executed");
    run_poststart(store, record)?;
    Ok(running)
}

fn run_poststart(store: &Store, record: &Record) -> Result<(), Failure> {
    let (hooks, state) = late_hooks(store, record, Status::Running)?;
    Ok(hooks::run(&hooks.poststart, &state, &record.bundle)?)
}
