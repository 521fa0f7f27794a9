//! `list`: all containers under the state root.

use std::process::ExitCode;

use berth_oci::state::{StateError, Store};
use serde_json::Value;

use super::failure::chain;
use super::{Failure, state};
use crate::cli::{ListArgs, OutputFormat};
use crate::log::Log;

/// A column's name, and the field it shows.
const COLUMNS: [(&str, &str); 6] = [
    ("ID", "id"),
    ("PID", "pid"),
    ("STATUS", "status"),
    ("BUNDLE", "bundle"),
    ("CREATED", "created"),
    ("OWNER", "owner"),
];

pub(super) fn run(store: &Store, args: &ListArgs, log: &Log) -> Result<ExitCode, Failure> {
    let mut rows = Vec::new();
    for id in store.list()? {
        match row(store, &id) {
            Ok(row) => rows.push(row),
            Err(StateError::NotFound(_)) => {} // deleted meanwhile, or not yet recorded
            // One damaged container must not hide the others.
            Err(error) => log.warn(&format!("container `{id}` is left out: {}", chain(&error))),
        }
    }
    match (args.quiet, args.format) {
        (true, _) => rows.iter().for_each(|row| println!("{}", text(&row["id"]))),
        (false, OutputFormat::Json) => println!("{}", Value::from(rows)),
        (false, OutputFormat::Table) => print!("{}", table(&rows)),
    }
    Ok(ExitCode::SUCCESS)
}

fn row(store: &Store, id: &str) -> Result<Value, StateError> {
    let record = store.load(id)?;
    let status = store.status(&record)?;
    Ok(state::value(store, &record, status))
}

/// Columns as wide as they need to be, at least twelve, three spaces between them.
fn table(rows: &[Value]) -> String {
    let mut lines = vec![COLUMNS.map(|(name, _)| name.to_owned())];
    lines.extend(
        rows.iter()
            .map(|row| COLUMNS.map(|(_, field)| text(&row[field]))),
    );
    let widths = std::array::from_fn::<usize, 6, _>(|column| {
        let longest = lines.iter().map(|line| line[column].chars().count()).max();
        (longest.unwrap_or(0) + 3).max(12)
    });
    let mut out = String::new();
    for line in lines {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = serde_json::json!({"id": "a-rather-long-id", "pid": 7, "status": "running",
            "bundle": "/b", "created": "2026", "owner": "root"});
        assert_eq!(
            table(&[row]),
            "ID                 PID         STATUS      BUNDLE      CREATED     OWNER\n\
             a-rather-long-id   7           running     /b          2026        root\n"
        );
    }
}
