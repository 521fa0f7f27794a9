//! `start`: lets a created container execute its program.

use std::process::ExitCode;

use berth_oci::launch;
use berth_oci::state::{Status, Store};
use berth_sys::crash_point;

use super::{Failure, late_hooks};
use crate::log::Log;

pub(super) fn run(store: &Store, id: &str, log: &Log) -> Result<ExitCode, Failure> {
    let _lock = store.lock(id)?;
    start(store, id, log)?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a container that the caller has locked.
pub(super) fn start(store: &Store, id: &str, log: &Log) -> Result<(), Failure> {
    let record = store.load(id)?;
    let status = store.status(&record)?;
    if status != Status::Created {
        return Err(Failure::wrong_status("start", id, status));
    }
    launch::open_gate(&store.gate(id)?)?;
    crash_point!("start: program executed");
    store.started(id)?;
    late_hooks(store, &record, "running", log, |hooks| &hooks.poststart);
    Ok(())
}
