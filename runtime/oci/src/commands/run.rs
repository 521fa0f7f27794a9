//! `run`: create, start, wait, delete.

use std::process::ExitCode;

use berth_oci::state::Store;

use super::create::{self, Next};
use super::record::Records;
use super::{Failure, delete, foreground, start};
use crate::cli::{Global, RunArgs};
use crate::log::Log;

pub(super) fn run(
    global: &Global,
    store: &Store,
    args: &RunArgs,
    records: &mut Records,
    log: &Log,
) -> Result<ExitCode, Failure> {
    let next = if args.detach { Next::Start } else { Next::Stay };
    let mut made = create::make(global, store, &args.bundle, log, next)?;
    let id = &args.bundle.id;
    let session = match foreground::Session::open(made.created.take_console()) {
        Ok(session) => session,
        Err(error) => {
            drop(made);
            let _ = delete::delete(store, id, true, log);
            return Err(error);
        }
    };
    let started = start::start_held(store, made.created, &made.record, records);
    let running = started.inspect_err(|_| {
        let _ = delete::delete(store, id, true, log); // why it did not start matters more
    })?;
    drop(made._lock);
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let code = session.wait(&running)?;
    if !args.keep {
        let _lock = store.lock(id)?;
        delete::delete(store, id, true, log)?;
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
