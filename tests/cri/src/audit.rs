//! The audit log of a node, as whoever holds its public key reads it.

use anyhow::{Result, anyhow};
use berth_audit::{Entry, Kind, PUBLIC_KEY_NAME, PublicKey, Report};

use crate::node::Node;

/// Every entry of the node's log.
///
/// # Errors
/// It cannot be read, or a line is no entry.
pub fn entries(node: &Node) -> Result<Vec<Entry>> {
    let lines = berth_audit::entries(&node.dir().join("audit"))?;
    lines
        .map(|line| Ok(berth_audit::parse(&line?.1.bytes)?))
        .collect()
}

/// The entries of one kind, of the container `id` or of none in particular.
///
/// # Errors
/// As for [`entries`].
pub fn entries_of(node: &Node, kind: Kind, id: &str) -> Result<Vec<Entry>> {
    let mut found = entries(node)?;
    found.retain(|entry| entry.kind == kind && entry.subject.container_id == id);
    Ok(found)
}

/// Verifies the log with the node's public key.
///
/// # Errors
/// The first place that is broken.
pub fn verify(node: &Node) -> Result<Report> {
    let key = PublicKey::read(&node.dir().join("data/audit").join(PUBLIC_KEY_NAME))?;
    let verified = berth_audit::verify_folder(&node.dir().join("audit"), &key)?;
    verified.map_err(|broken| anyhow!("{broken}"))
}
