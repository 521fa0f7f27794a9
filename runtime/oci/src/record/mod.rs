//! The sandbox record: what was asked for a process next to what the kernel reports of it, read
//! before the program's first instruction; what differs does not start.
//!
//! ```text
//! Plan ─requested▶ Requested ─┐
//!                             ├─compare▶ Record: match, degraded, mismatch
//! /proc/<pid>, cgroup ─observed▶ Observed ─┘
//! ```
//!
//! `docs/sandbox-record.md` describes each field, where both sides come from, and how they are made
//! comparable.

mod compare;
mod digest;
mod observed;
mod own;
mod requested;
mod schema;
mod trace;

use std::path::Path;

pub use requested::{container, further};
pub use schema::{
    Applied, Capabilities, Context, Environment, Field, Fields, Finding, IdMapLines, Ids, Kind,
    Mount, Namespace, ReadAt, Record, Requested, Seccomp, VERSION, Verdict,
};
pub use trace::{Refused, Watch};

#[cfg(test)]
mod tests;

use crate::cgroup::{self, CgroupError};
use crate::spec::config::LinuxResources;

/// The record of a process which another runtime started: nobody looked.
pub fn unverified(kind: Kind, container: &str, pid: i32, launcher: &str) -> Record {
    Record {
        version: VERSION,
        kind,
        container: container.to_owned(),
        pid: Some(pid),
        time: trace::now(),
        read_at: ReadAt::Never,
        verdict: Verdict::Unverified,
        degraded: vec![Finding {
            field: "read_at".into(),
            reason: format!("started by {launcher}"),
        }],
        mismatches: Vec::new(),
        fields: None,
    }
}

/// The record of new limits, which were written to the group at `path`.
///
/// # Errors
/// `resources` mean nothing in cgroup v2, or this process cannot be read.
pub fn update(
    container: &str,
    path: &Path,
    resources: &LinuxResources,
    degraded_ok: bool,
) -> Result<Record, CgroupError> {
    let devices = resources.devices.clone();
    let program = cgroup::requested_device_program(&devices)?;
    let requested = Requested {
        limits: Some(cgroup::requested_files(resources)?),
        device_rules: program.map(|code| vec![digest::program(&code)]),
        context: Context {
            container: container.to_owned(),
            cgroup: Some(path.display().to_string()),
            degraded_ok,
            devices,
            ..Context::default()
        },
        ..Requested::default()
    };
    trace::of_limits(requested).map_err(|source| CgroupError::Access {
        action: "verify the limits of",
        path: path.to_owned(),
        source,
    })
}
