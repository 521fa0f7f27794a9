//! Volumes of pods: made ready before the first container, torn down after the last.
//!
//! Layout: `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<volume>` and, for subPaths,
//! `<root>/pods/<uid>/volume-subpaths/<volume>/<container>/<index>`, as other kubelets
//! have it, so that tools find what they expect.
//!
//! Invariant: one pod's volumes are worked on by one task at a time (`locks`).

mod actual;
mod desired;
mod mounts;
mod ownership;
mod plugin;
mod populate;
mod reconcile;
mod refresh;
mod subpath;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use berth_proto::cri::{self as v1};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::objects::Objects;
use crate::pod::field::Surroundings;
use crate::pod::{PodUid, uid};
pub use plugin::SourceError;
use plugin::token::Tokens;

/// A cheap handle through which `pod/execute` has volumes made and asks for mounts.
#[derive(Clone, Debug)]
pub struct Volumes {
    root_dir: PathBuf,
    objects: Objects,
    /// What `resourceFieldRef` takes for an absent limit.
    around: Arc<Surroundings>,
    tokens: Tokens,
    locks: Locks,
}

type Lock = Arc<tokio::sync::Mutex<()>>;

/// One lock a pod.
#[derive(Clone, Debug, Default)]
struct Locks(Arc<std::sync::Mutex<HashMap<String, Lock>>>);

impl Locks {
    async fn of(&self, uid: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = self.table().entry(uid.to_owned()).or_default().clone();
        lock.lock_owned().await
    }

    fn forget(&self, uid: &str) {
        self.table().remove(uid);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Lock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a pod's volumes are not ready, or a mount cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A volume could not be made; the space at the end is part of the stock event's text.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" ")]
    SetUp {
        volume: String,
        #[source]
        source: SetUpError,
    },
    /// A mount names a volume that the pod does not have.
    #[error("volumeMount `{0}`: no such volume")]
    NoSuchVolume(String),
    /// A subPath cannot be given to the container.
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\"")]
    SubPath {
        volume: String,
        container: String,
        #[source]
        source: subpath::SubPathError,
    },
    /// The pod's volumes cannot be taken down.
    #[error("cannot tear the volumes of pod {uid} down")]
    TearDown {
        uid: String,
        #[source]
        source: actual::IoStep,
    },
    /// The thread that did the work is gone.
    #[error("work on volumes was cut off")]
    CutOff(#[source] tokio::task::JoinError),
}

/// Why one volume could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// What it is made of cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// One step on the disk failed.
    #[error(transparent)]
    Io(#[from] actual::IoStep),
    /// The hostPath is not what `type` demands.
    #[error("hostPath type check failed: {} is not a {kind}", path.display())]
    HostPathType { path: PathBuf, kind: &'static str },
    /// The hostPath's `type` is not one of the API's.
    #[error("hostPath type `{0}` is not known")]
    UnknownHostPathType(String),
    /// A quantity does not parse.
    #[error("sizeLimit: `{0}` is not a quantity")]
    SizeLimit(String),
    /// The name cannot be a directory's.
    #[error("`{0}` cannot be the name of a volume")]
    Name(String),
    /// A kind of volume that is not honoured.
    #[error("kind of volume not supported")]
    Unsupported,
}

impl Volumes {
    /// Volumes below `root_dir` (`Config::root_dir`), fed from `objects`; `around` is what
    /// fields of pods may refer to.
    #[must_use]
    pub fn new(root_dir: PathBuf, objects: Objects, around: Surroundings) -> Volumes {
        Volumes {
            root_dir,
            tokens: Tokens::new(objects.clone()),
            objects,
            around: Arc::new(around),
            locks: Locks::default(),
        }
    }

    /// Makes every volume of the pod ready; returns when all are, idempotent. What is
    /// there already is brought up to date; when that cannot be done, it stays as it was.
    ///
    /// The caller retries with back-off and reports `FailedMount` with the error.
    ///
    /// # Errors
    /// The first volume that cannot be made ready.
    pub async fn wait_ready(&self, pod: &Pod) -> Result<(), VolumeError> {
        let _one = self.locks.of(uid(pod)).await;
        for desired in desired::of(pod) {
            let made = reconcile::ensure(self, pod, &desired).await;
            made.map_err(|source| VolumeError::SetUp {
                volume: desired.volume.name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// The CRI mounts of one container's `volumeMounts`; `envs` is its environment, for
    /// `subPathExpr`.
    ///
    /// # Errors
    /// A mount whose volume or subPath cannot be honoured.
    pub async fn mounts_for(
        &self,
        pod: &Pod,
        container: &Container,
        envs: &[(String, String)],
    ) -> Result<Vec<v1::Mount>, VolumeError> {
        let _one = self.locks.of(uid(pod)).await;
        let planned = mounts::plan(&self.pod_dir(uid(pod)), pod, container, envs)?;
        let name = container.name.clone();
        tokio::task::spawn_blocking(move || {
            let made = planned.into_iter().map(|mount| mount.make(&name));
            made.collect()
        })
        .await
        .map_err(VolumeError::CutOff)?
    }

    /// Removes everything made for the pod; idempotent.
    ///
    /// # Errors
    /// The first path that cannot be unmounted or removed.
    pub async fn teardown(&self, uid: &PodUid) -> Result<(), VolumeError> {
        let one = self.locks.of(uid.as_str()).await;
        let dir = self.pod_dir(uid.as_str());
        let torn = tokio::task::spawn_blocking(move || reconcile::tear_down(&dir)).await;
        torn.map_err(VolumeError::CutOff)?
            .map_err(|source| VolumeError::TearDown {
                uid: uid.to_string(),
                source,
            })?;
        self.tokens.forget(uid.as_str());
        drop(one);
        self.locks.forget(uid.as_str());
        Ok(())
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }
}

/// Runs work on the disk where it may block.
async fn blocking<T: Send + 'static, E: From<actual::IoStep> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(actual::IoStep::new("work on", ".", io::Error::other(error)).into()),
    }
}
