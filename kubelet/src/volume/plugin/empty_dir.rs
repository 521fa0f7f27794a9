//! emptyDir: a directory, or a tmpfs on one, that lives as long as the pod.

use std::ffi::CString;
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use rustix::mount::MountFlags;

use crate::resources::quantity;
use crate::volume::SetUpError;
use crate::volume::actual::{IoStep, is_mount_point};
use crate::volume::ownership;

/// World-writable: containers run as whatever user they like.
const MODE: u32 = 0o777;

/// Bytes of `sizeLimit`; `None` when there is no limit.
///
/// # Errors
/// When it is no quantity.
pub fn size_limit(source: &EmptyDirVolumeSource) -> Result<Option<u64>, SetUpError> {
    let Some(limit) = &source.size_limit else {
        return Ok(None);
    };
    let bytes = quantity::value(&limit.0).and_then(|bytes| u64::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| SetUpError::SizeLimit(limit.0.clone()))?;
    Ok((bytes > 0).then_some(bytes))
}

/// Makes the directory; what is in it already stays.
///
/// # Errors
/// The step that failed.
pub fn make(path: &Path, group: Option<u32>) -> Result<(), IoStep> {
    if path.symlink_metadata().is_ok_and(|seen| seen.is_dir()) {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(IoStep::on("make", path))?;
    ownership::apply_to_dir(path, MODE, group).map_err(IoStep::on("hand over", path))
}

/// Makes the directory with a tmpfs of at most `limit` bytes on it, once.
///
/// # Errors
/// The step that failed.
pub fn make_in_memory(
    path: &Path,
    limit: Option<u64>,
    mode: u32,
    group: Option<u32>,
) -> Result<(), IoStep> {
    std::fs::create_dir_all(path).map_err(IoStep::on("make", path))?;
    if is_mount_point(path)? {
        return Ok(());
    }
    let size = limit.map(|bytes| format!("size={bytes}"));
    // Content must not reach a disk by way of swap; `noswap` is Linux 6.4.
    let with = |extra: &str| {
        let options = [size.as_deref(), Some(extra)];
        let options = options.into_iter().flatten().filter(|o| !o.is_empty());
        let options = options.collect::<Vec<_>>().join(",");
        let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(options.as_c_str()))
    };
    match with("noswap") {
        Err(rustix::io::Errno::INVAL) => with(""),
        other => other,
    }
    .map_err(IoStep::on("mount a tmpfs on", path))?;
    ownership::apply_to_dir(path, mode, group).map_err(IoStep::on("hand over", path))
}

/// As `make_in_memory`, for an emptyDir.
///
/// # Errors
/// The step that failed.
pub fn make_memory_volume(
    path: &Path,
    limit: Option<u64>,
    group: Option<u32>,
) -> Result<(), IoStep> {
    make_in_memory(path, limit, MODE, group)
}
