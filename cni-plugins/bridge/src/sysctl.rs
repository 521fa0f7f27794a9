//! Sysctls below /proc/sys; in a namespace's thread they are the namespace's.

use std::path::Path;

use berth_cni::{CniError, Code};

/// Sets a value unless it stands already: a read-only /proc/sys whose value is
/// right is no reason to fail (nested nodes).
pub(crate) fn ensure(key: &str, value: &str) -> Result<(), CniError> {
    let path = Path::new("/proc/sys").join(key);
    if std::fs::read_to_string(&path).is_ok_and(|held| held.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|e| {
        CniError::caused(
            Code::Kernel,
            format!("bridge: cannot set {key} to {value}"),
            e,
        )
    })
}

/// Sets a value where the kernel has the key (IPv6 may be off).
pub(crate) fn set_if_present(key: &str, value: &str) {
    // Absent means there is nothing to protect from.
    let _ = ensure(key, value);
}
