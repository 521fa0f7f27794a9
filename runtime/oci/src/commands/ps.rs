//! `ps`: the processes of a container.

use std::process::ExitCode;

use berth_oci::state::Store;

use super::{Failure, cgroup};
use crate::cli::{ListFormat, PsArgs};

pub(super) fn run(store: &Store, args: &PsArgs) -> Result<ExitCode, Failure> {
    let record = store.load(&args.id)?;
    let pids = match record.cgroup {
        Some(_) => cgroup(&record)?.processes()?,
        None => vec![record.pid],
    };
    match args.format {
        ListFormat::Json => println!("{}", serde_json::Value::from(pids)),
        ListFormat::Table => {
            println!("PID");
            pids.iter().for_each(|pid| println!("{pid}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
