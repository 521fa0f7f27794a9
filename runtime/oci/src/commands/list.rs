//! `list`: all containers under the state root.

use std::process::ExitCode;

use berth_oci::state::{StateError, Store};

use super::{Failure, state};
use crate::cli::{ListArgs, ListFormat};

pub(super) fn run(store: &Store, args: &ListArgs) -> Result<ExitCode, Failure> {
    let mut rows = Vec::new();
    for id in store.list()? {
        let record = match store.load(&id) {
            Err(StateError::NotFound(_)) => continue, // deleted meanwhile, or not yet recorded
            record => record?,
        };
        let status = store.status(&record)?;
        rows.push(state::value(&record, status));
    }
    match (args.quiet, args.format) {
        (true, _) => rows.iter().for_each(|row| println!("{}", text(row, "id"))),
        (false, ListFormat::Json) => println!("{}", serde_json::Value::from(rows)),
        (false, ListFormat::Table) => {
            println!(
                "{:<24} {:<8} {:<10} {:<32} BUNDLE",
                "ID", "PID", "STATUS", "CREATED"
            );
            for row in &rows {
                let (id, status) = (text(row, "id"), text(row, "status"));
                println!(
                    "{id:<24} {:<8} {status:<10} {:<32} {}",
                    row["pid"],
                    text(row, "created"),
                    text(row, "bundle")
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text<'a>(row: &'a serde_json::Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}
