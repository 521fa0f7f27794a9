//! UpdateContainerResources: the limits of a container, changed in place.

use std::sync::Arc;

use berth_oci::cgroup::{Cgroup, CgroupError, NotEnforced};
use berth_oci::record::{self as verified, Record};
use berth_oci::spec::config::LinuxResources;
use berth_proto::cri;
use serde_json::Value;

use crate::audit::{self, AuditError};
use crate::container::model::{ContainerRecord, State};
use crate::container::oci_spec as spec;
use crate::record::{self, RecordError};
use crate::server::Server;

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
    /// The kernel tells other limits than were asked for.
    #[error("the limits differ from what was asked: {0}")]
    Differ(String),
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
    let seen = match record.state {
        State::Exited(_) => return Err(UpdateContainerError::Ended),
        State::Running { .. } => Some(apply(server, record, limits).await?),
        State::Reserved | State::Created | State::Starting => {
            rewrite(server, record, limits)?;
            None // its start compares them
        }
    };
    let recorded = server
        .containers
        .update(&record.id, |record| record.resources = merged);
    recorded?;
    let event = audit::update(server, record, who, seen.as_ref());
    server.audit.append(event).await?;
    let differences = seen.map(|seen| seen.mismatches).unwrap_or_default();
    if differences.is_empty() {
        return Ok(());
    }
    let lines = differences.iter();
    let lines: Vec<String> = lines
        .map(|one| format!("{}: {}", one.field, one.reason))
        .collect();
    Err(UpdateContainerError::Differ(lines.join("; ")))
}

/// Writes the limits, and tells what the kernel says of them.
async fn apply(
    server: &Server,
    record: &ContainerRecord,
    limits: Value,
) -> Result<Record, UpdateContainerError> {
    let limits: LinuxResources =
        serde_json::from_value(limits).map_err(UpdateContainerError::Limits)?;
    let path = server.cgroups.mount.join(&record.cgroup);
    let id = record.id.to_string();
    let degraded_ok = server.config.allow_degraded_cgroups;
    let applied = tokio::task::spawn_blocking(move || {
        let not_enforced = Cgroup::open(&path)?.apply(&limits)?;
        let seen = verified::update(&id, &path, &limits, degraded_ok)?;
        Ok((not_enforced, seen))
    });
    let (not_enforced, seen) = applied
        .await
        .map_err(|_| UpdateContainerError::ShuttingDown)?
        .map_err(UpdateContainerError::Cgroup)?;
    if not_enforced.is_empty() || degraded_ok {
        return Ok(seen);
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
