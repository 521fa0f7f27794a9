//! Versions of the specification and what each changes in a document.

use crate::{CniError, Code};

/// The newest version spoken, and the one used in process.
pub const CURRENT: &str = "1.1.0";

/// Every version that a configuration may ask for.
pub const SUPPORTED: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Refuses a version that is not in [`SUPPORTED`].
///
/// # Errors
/// [`Code::IncompatibleVersion`], naming both sides.
pub fn ensure_supported(version: &str) -> Result<(), CniError> {
    if SUPPORTED.contains(&version) {
        return Ok(());
    }
    Err(CniError::caused(
        Code::IncompatibleVersion,
        "incompatible CNI versions",
        format!("config is {version:?}, plugin supports {SUPPORTED:?}"),
    ))
}

/// Whether results of this version carry `ips[].version` (dropped in 1.0.0).
pub fn has_ip_version_field(version: &str) -> bool {
    version.starts_with("0.")
}

/// The document that the command VERSION prints.
pub fn to_json() -> String {
    serde_json::json!({ "cniVersion": CURRENT, "supportedVersions": SUPPORTED }).to_string()
}
