//! `state`: what a container is, as JSON (runtime.md, "State").

use std::process::ExitCode;

use berth_oci::state::{Record, Status, Store};
use serde_json::{Value, json};

use super::{Failure, owner};

pub(super) fn run(store: &Store, id: &str) -> Result<ExitCode, Failure> {
    let record = store.load(id)?;
    let status = store.status(&record)?;
    println!("{:#}", value(store, &record, status));
    Ok(ExitCode::SUCCESS)
}

/// The fields of the specification, and those runc adds.
pub(super) fn value(store: &Store, record: &Record, status: Status) -> Value {
    let mut value = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status.as_str(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": store.owner(&record.id).map(owner::name).unwrap_or_default(),
    });
    if !record.annotations.is_empty() {
        value["annotations"] = json!(record.annotations);
    }
    value
}
