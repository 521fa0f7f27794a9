//! Makes one volume what the pod asks for, and takes everything of a pod away again.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use rustix::mount::UnmountFlags;

use super::actual::{IoStep, is_plain_name, mounts_below};
use super::desired::{Desired, Kind, fs_group};
use super::plugin::{config_map, downward_api, empty_dir, host_path, projected, secret};
use super::populate::{self, Payload};
use super::{SetUpError, SourceError, Volumes, blocking};
use crate::pod::{namespace, uid};

/// Mode of a volume with content, and of a file in it that names none.
const CONTENT_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Makes a volume ready or brings it up to date.
///
/// # Errors
/// Why it is not ready; content that was there already and cannot be had anew is no error.
pub async fn ensure(volumes: &Volumes, pod: &Pod, desired: &Desired<'_>) -> Result<(), SetUpError> {
    let volume = &desired.volume.name;
    if !is_plain_name(volume) {
        return Err(SetUpError::Name(volume.clone()));
    }
    let path = desired.host_path(&volumes.pod_dir(uid(pod)));
    let (group, in_memory) = (fs_group(pod), desired.in_memory());
    match desired.kind {
        Kind::Unsupported => Err(SetUpError::Unsupported),
        Kind::HostPath(source) => {
            let source = source.clone();
            blocking(move || host_path::check(&source)).await
        }
        Kind::EmptyDir(source) => {
            let limit = empty_dir::size_limit(source)?;
            blocking(move || match in_memory {
                true => Ok(empty_dir::make_memory_volume(&path, limit, group)?),
                false => Ok(empty_dir::make(&path, group)?),
            })
            .await
        }
        _ => match payload(volumes, pod, desired).await {
            Ok(payload) => {
                blocking(move || write(&path, &payload, in_memory, group).map_err(Into::into)).await
            }
            Err(error) if populate::is_written(&path) => {
                tracing::warn!(
                    pod = uid(pod),
                    volume,
                    error = crate::chain::chain(&error),
                    "a volume keeps its content"
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        },
    }
}

async fn payload(
    volumes: &Volumes,
    pod: &Pod,
    desired: &Desired<'_>,
) -> Result<Payload, SourceError> {
    let (objects, ns) = (&volumes.objects, namespace(pod));
    let mode = |given: Option<i32>| {
        let given = given.and_then(|mode| u32::try_from(mode).ok());
        given.map_or(FILE_MODE, |mode| mode & 0o777)
    };
    match desired.kind {
        Kind::ConfigMap(s) => {
            let (items, mode) = (s.items.as_deref(), mode(s.default_mode));
            config_map::payload(objects, (ns, &s.name), items, mode, s.optional).await
        }
        Kind::Secret(s) => {
            let (items, mode) = (s.items.as_deref(), mode(s.default_mode));
            let name = s.secret_name.as_deref().unwrap_or_default();
            secret::payload(objects, (ns, name), items, mode, s.optional).await
        }
        Kind::DownwardApi(s) => {
            let items = s.items.as_deref().unwrap_or_default();
            downward_api::payload(pod, items, mode(s.default_mode), &volumes.around)
        }
        Kind::Projected(s) => projected::payload(volumes, pod, s).await,
        Kind::EmptyDir(_) | Kind::HostPath(_) | Kind::Unsupported => Ok(Payload::new()),
    }
}

fn write(
    path: &Path,
    payload: &Payload,
    in_memory: bool,
    group: Option<u32>,
) -> Result<(), IoStep> {
    if in_memory {
        empty_dir::make_in_memory(path, None, CONTENT_MODE, group)?;
    } else {
        std::fs::create_dir_all(path).map_err(IoStep::on("make", path))?;
    }
    populate::write(path, payload, group)
}

/// Unmounts everything below a pod's directory, then removes what was made for volumes.
///
/// Nothing is removed while anything is mounted there, and no link is followed: what a
/// container put in its volume leads nowhere (CVE-2017-1002102).
///
/// # Errors
/// The first step that failed; what was done until then stays done.
pub fn tear_down(pod_dir: &Path) -> Result<(), IoStep> {
    for mount in mounts_below(pod_dir)? {
        // A process that still has a file open there keeps the mount, detached, to itself.
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(&mount, flags).map_err(IoStep::on("unmount", &mount))?;
    }
    if let Some(mount) = mounts_below(pod_dir)?.first() {
        let busy = io::Error::from(io::ErrorKind::ResourceBusy);
        return Err(IoStep::new("unmount", mount, busy));
    }
    for made in ["volume-subpaths", "volumes"] {
        let path = pod_dir.join(made);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(IoStep::new("remove", path, error));
            }
            _ => {}
        }
    }
    Ok(())
}
