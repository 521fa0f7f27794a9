//! `pause` and `resume`: the freezer of the container's cgroup.

use std::process::ExitCode;

use berth_oci::state::{Status, Store};

use super::{Failure, cgroup};

pub(super) fn run(store: &Store, id: &str, frozen: bool) -> Result<ExitCode, Failure> {
    let _lock = store.lock(id)?;
    let record = store.load(id)?;
    let status = store.status(&record)?;
    let (verb, fits) = match frozen {
        true => ("pause", matches!(status, Status::Running | Status::Created)),
        false => ("resume", status == Status::Paused),
    };
    if !fits {
        return Err(Failure::wrong_status(verb, id, status));
    }
    cgroup(&record)?.freeze(frozen)?;
    Ok(ExitCode::SUCCESS)
}
