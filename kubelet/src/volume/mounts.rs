//! From a container's `volumeMounts` to CRI mounts.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use berth_proto::cri::{self as v1};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::VolumeError;
use super::desired::{self, Desired};
use super::subpath::{self, SubPathError};
use crate::pod::expand::expand;

/// A mount still to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    volume: String,
    /// Where the volume is.
    root: PathBuf,
    /// What of it is wanted, and where that is to be mounted on the host.
    sub_path: Option<(String, PathBuf)>,
    /// Everything but the host path.
    mount: v1::Mount,
}

/// The mounts of a container, in the order of its spec.
///
/// # Errors
/// A mount of a volume that the pod does not have, or a `subPathExpr` with an unknown
/// variable.
pub fn plan(
    pod_dir: &Path,
    pod: &Pod,
    container: &Container,
    envs: &[(String, String)],
) -> Result<Vec<Planned>, VolumeError> {
    let volumes = desired::of(pod);
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    mounts
        .map(|(index, mount)| {
            let of_name = |d: &&Desired<'_>| d.volume.name == mount.name;
            let volume = volumes.iter().find(of_name);
            let volume = volume.ok_or_else(|| VolumeError::NoSuchVolume(mount.name.clone()))?;
            let sub_path = sub_path(mount, envs).map_err(|source| VolumeError::SubPath {
                volume: mount.name.clone(),
                container: container.name.clone(),
                source,
            })?;
            let at = pod_dir.join("volume-subpaths").join(&mount.name);
            let at = at.join(&container.name).join(index.to_string());
            Ok(Planned {
                volume: mount.name.clone(),
                root: volume.host_path(pod_dir),
                sub_path: sub_path.map(|sub_path| (sub_path, at)),
                mount: cri_mount(mount, volume),
            })
        })
        .collect()
}

fn cri_mount(mount: &VolumeMount, volume: &Desired<'_>) -> v1::Mount {
    let propagation = match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    // The API takes a path without a leading slash as one below the root.
    let path = Path::new("/").join(&mount.mount_path);
    v1::Mount {
        container_path: path.to_string_lossy().into_owned(),
        readonly: mount.read_only == Some(true) || volume.is_content(),
        propagation: propagation.into(),
        ..Default::default()
    }
}

/// `subPath`, or `subPathExpr` with every variable known.
fn sub_path(
    mount: &VolumeMount,
    envs: &[(String, String)],
) -> Result<Option<String>, SubPathError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some(expression) = given(&mount.sub_path_expr) else {
        return Ok(given(&mount.sub_path));
    };
    let unknown = RefCell::new(None);
    let expanded = expand(&expression, |name| {
        let found = envs.iter().rev().find(|(n, _)| n == name);
        if found.is_none() {
            unknown.replace(Some(name.to_owned()));
        }
        found.map(|(_, value)| value.as_str())
    });
    match unknown.into_inner() {
        Some(name) => Err(SubPathError::UnknownVariable(name)),
        None => Ok(Some(expanded)),
    }
}

impl Planned {
    /// The CRI mount, its subPath in place.
    ///
    /// # Errors
    /// A subPath that cannot be honoured.
    pub fn make(self, container: &str) -> Result<v1::Mount, VolumeError> {
        let host_path = match self.sub_path {
            None => self.root,
            Some((sub_path, at)) => {
                let made = subpath::bind(&self.root, &sub_path, &at);
                made.map_err(|source| VolumeError::SubPath {
                    volume: self.volume,
                    container: container.to_owned(),
                    source,
                })?;
                at
            }
        };
        Ok(v1::Mount {
            host_path: host_path.to_string_lossy().into_owned(),
            ..self.mount
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn mounts_of_a_container() {
        let pod = pod(
            "{volumes: [{name: e, emptyDir: {}}, {name: h, hostPath: {path: /srv}},
                {name: c, configMap: {name: x}}],
            containers: [{name: a, volumeMounts: [
                {name: e, mountPath: /e, mountPropagation: Bidirectional},
                {name: h, mountPath: h, readOnly: true},
                {name: c, mountPath: /c, subPathExpr: $(A)/x},
                {name: e, mountPath: /s, subPath: s}]}]}",
        );
        let container = &crate::pod::containers(&pod)[0];
        let envs = [("A".to_owned(), "1".to_owned())];
        let planned = plan(Path::new("/k/pods/u1"), &pod, container, &envs).unwrap();
        let shown: Vec<String> = planned
            .iter()
            .map(|p| {
                let (m, root) = (&p.mount, p.root.display());
                let sub = p.sub_path.as_ref();
                let sub = sub.map(|(s, at)| format!(" {s} {}", at.display()));
                let (path, ro, sub) = (&m.container_path, m.readonly, sub.unwrap_or_default());
                format!("{path} {root} {ro} {}{sub}", m.propagation)
            })
            .collect();
        let expected = [
            "/e /k/pods/u1/volumes/kubernetes.io~empty-dir/e false 2",
            "/h /srv true 0",
            "/c /k/pods/u1/volumes/kubernetes.io~configmap/c true 0 1/x \
             /k/pods/u1/volume-subpaths/c/a/2",
            "/s /k/pods/u1/volumes/kubernetes.io~empty-dir/e false 0 s \
             /k/pods/u1/volume-subpaths/e/a/3",
        ];
        assert_eq!(shown, expected);
        let wrong = plan(Path::new("/k"), &pod, container, &[]).unwrap_err();
        let text = crate::chain::chain(&wrong);
        assert!(text.contains("`A`"), "{text}");
    }
}
