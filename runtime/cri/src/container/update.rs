//! UpdateContainerResources: the limits of a container, changed in place.

use std::path::Path;
use std::sync::Arc;

use berth_oci::cgroup::{Cgroup, CgroupError, NotEnforced};
use berth_proto::cri;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use crate::audit::{self, AuditError};
use crate::container::model::{ContainerRecord, State};
use crate::container::oci_spec as spec;
use crate::record::{self, RecordError};
use crate::server::Server;

/// The files of a cgroup that say what it may use.
const LIMIT_FILES: [&str; 12] = [
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "io.max",
    "io.weight",
    "memory.low",
    "memory.max",
    "memory.swap.max",
    "pids.max",
];

/// Why the limits are as they were.
#[derive(Debug, thiserror::Error)]
pub enum UpdateContainerError {
    /// It has ended.
    #[error("the container has ended")]
    Ended,
    /// The limits cannot be expressed.
    #[error("the limits make no sense")]
    Limits(#[source] serde_json::Error),
    /// The kernel refuses them.
    #[error("cannot set the limits")]
    Cgroup(#[source] CgroupError),
    /// The host cannot enforce them.
    #[error("not enforced on this host: {0}")]
    NotEnforced(String),
    /// The configuration of a container not yet started cannot be changed.
    #[error("cannot record the limits")]
    Record(#[from] RecordError),
    /// It cannot be put in the audit log.
    #[error("cannot record the limits")]
    Audit(#[from] AuditError),
    /// The task that did the work was ended with the server.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Sets what `update` gives and keeps the rest, for `who`.
pub async fn update(
    server: &Arc<Server>,
    record: &ContainerRecord,
    update: &cri::LinuxContainerResources,
    who: &str,
) -> Result<(), UpdateContainerError> {
    server.audit.ready().await?;
    let merged = spec::merge(&record.resources, update);
    let limits = spec::limits(&merged, server.cgroups.controllers.contains("hugetlb"));
    let mut seen = json!({ "asked": limits });
    match record.state {
        State::Exited(_) => return Err(UpdateContainerError::Ended),
        State::Running { .. } => {
            apply(server, record, limits).await?;
            seen["kernel"] = read_back(&server.cgroups.mount.join(&record.cgroup));
        }
        State::Reserved | State::Created | State::Starting => rewrite(server, record, limits)?,
    }
    let recorded = server
        .containers
        .update(&record.id, |record| record.resources = merged);
    recorded?;
    let event = audit::update(server, record, who, &seen);
    server.audit.append(event).await?;
    Ok(())
}

/// The limits of the cgroup at `path` as its files tell them now.
fn read_back(path: &Path) -> Value {
    let read = |name: &&str| {
        let text = std::fs::read_to_string(path.join(name)).ok()?;
        Some(((*name).to_owned(), Value::from(text.trim_end())))
    };
    Value::Object(LIMIT_FILES.iter().filter_map(read).collect())
}

async fn apply(
    server: &Server,
    record: &ContainerRecord,
    limits: Value,
) -> Result<(), UpdateContainerError> {
    let limits: LinuxResources =
        serde_json::from_value(limits).map_err(UpdateContainerError::Limits)?;
    let path = server.cgroups.mount.join(&record.cgroup);
    let applied = tokio::task::spawn_blocking(move || Cgroup::open(&path)?.apply(&limits)).await;
    let not_enforced = applied
        .map_err(|_| UpdateContainerError::ShuttingDown)?
        .map_err(UpdateContainerError::Cgroup)?;
    if not_enforced.is_empty() || server.config.allow_degraded_cgroups {
        return Ok(());
    }
    let line = |limit: &NotEnforced| format!("{}: {}", limit.field, limit.reason);
    let lines: Vec<String> = not_enforced.iter().map(line).collect();
    Err(UpdateContainerError::NotEnforced(lines.join("; ")))
}

/// A container that has not been started gets the limits with its configuration.
fn rewrite(
    server: &Server,
    record: &ContainerRecord,
    limits: Value,
) -> Result<(), UpdateContainerError> {
    let path = server
        .containers
        .dir(&record.id)
        .join(crate::container::create::CONFIG_NAME);
    let Some(mut config) = record::read::<Value>(&path)? else {
        return Ok(());
    };
    let devices = config["linux"]["resources"]["devices"].take();
    config["linux"]["resources"] = limits;
    config["linux"]["resources"]["devices"] = devices;
    Ok(record::write(&path, &record::bytes(&config))?)
}
