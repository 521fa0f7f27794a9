//! What a pod's spec asks for, by kind of volume.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource,
    Pod, ProjectedVolumeSource, SecretVolumeSource, Volume,
};

/// A volume and its kind.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// As the pod names it.
    pub volume: &'a Volume,
    /// What it is.
    pub kind: Kind<'a>,
}

/// The kinds of volumes that are honoured.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    EmptyDir(&'a EmptyDirVolumeSource),
    HostPath(&'a HostPathVolumeSource),
    ConfigMap(&'a ConfigMapVolumeSource),
    Secret(&'a SecretVolumeSource),
    DownwardApi(&'a DownwardAPIVolumeSource),
    Projected(&'a ProjectedVolumeSource),
    /// Refused where it is made.
    Unsupported,
}

impl<'a> From<&'a Volume> for Kind<'a> {
    fn from(volume: &'a Volume) -> Kind<'a> {
        if let Some(source) = &volume.empty_dir {
            Kind::EmptyDir(source)
        } else if let Some(source) = &volume.host_path {
            Kind::HostPath(source)
        } else if let Some(source) = &volume.config_map {
            Kind::ConfigMap(source)
        } else if let Some(source) = &volume.secret {
            Kind::Secret(source)
        } else if let Some(source) = &volume.downward_api {
            Kind::DownwardApi(source)
        } else if let Some(source) = &volume.projected {
            Kind::Projected(source)
        } else {
            Kind::Unsupported
        }
    }
}

/// Every volume of the pod, in the order of its spec.
pub fn of(pod: &Pod) -> Vec<Desired<'_>> {
    let spec = pod.spec.as_ref();
    let volumes = spec.and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let desired = |volume| Desired {
        volume,
        kind: Kind::from(volume),
    };
    volumes.iter().map(desired).collect()
}

impl Desired<'_> {
    /// Where it is on the host. `pod_dir` is `<root>/pods/<uid>`.
    pub fn host_path(&self, pod_dir: &Path) -> PathBuf {
        let plugin = match self.kind {
            Kind::HostPath(source) => return PathBuf::from(&source.path),
            Kind::EmptyDir(_) => "empty-dir",
            Kind::ConfigMap(_) => "configmap",
            Kind::Secret(_) => "secret",
            Kind::DownwardApi(_) => "downward-api",
            Kind::Projected(_) => "projected",
            Kind::Unsupported => "unsupported",
        };
        let dir = pod_dir
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"));
        dir.join(&self.volume.name)
    }

    /// Its content is written by the kubelet: containers only read it.
    pub fn is_content(&self) -> bool {
        matches!(
            self.kind,
            Kind::ConfigMap(_) | Kind::Secret(_) | Kind::DownwardApi(_) | Kind::Projected(_)
        )
    }

    /// Its content must never reach a disk.
    pub fn in_memory(&self) -> bool {
        match self.kind {
            Kind::EmptyDir(source) => source.medium.as_deref() == Some("Memory"),
            Kind::Secret(_) | Kind::Projected(_) => true,
            _ => false,
        }
    }
}

/// `spec.securityContext.fsGroup`.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}
