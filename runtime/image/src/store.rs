//! The image store: the crate's one entry point.

mod error;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use error::{LookupError, OpenError, PullError, RemoveError, SnapshotError};

use crate::config::{Config, Credentials};
use crate::content::{Content, private_dir};
use crate::digest::Digest;
use crate::gc;
use crate::image::{FsUsage, Image, Layers};
use crate::inflight::InFlight;
use crate::layer::merged::Merged;
use crate::layer::tree::Tree;
use crate::manifest;
use crate::pull;
use crate::reference::Reference;
use crate::registry::transport;
use crate::snapshot::layers::LayerDirs;
use crate::snapshot::metadata::{ImageRecord, Metadata, Stored};
use crate::snapshot::overlay::{Base, Snapshots};
use crate::user::{self, ResolvedUser, UserError, UserSpec};

/// Images, their layers, and the writable snapshots of containers. A clone is another handle.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: Config,
    pub content: Content,
    pub metadata: Metadata,
    pub layers: LayerDirs,
    pub inflight: InFlight,
    /// One per layer or range being fetched.
    pub permits: Arc<Semaphore>,
    pub roots: RootCertStore,
    snapshots: Snapshots,
    /// Held while an image and its documents are recorded, or while unreferenced ones are removed.
    recording: Mutex<()>,
}

/// What a container has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotUsage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl ImageStore {
    /// Opens (or makes) the store and removes what a crash left behind.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let directory = |source| OpenError::Directory {
            path: config.root.clone(),
            source,
        };
        private_dir(&config.root).map_err(directory)?;
        let content = Content::open(&config.root).map_err(directory)?;
        let layers = LayerDirs::open(&config.root).map_err(directory)?;
        let snapshots = Snapshots::open(&config.root).map_err(directory)?;
        let read_config = |image: &ImageRecord| {
            let bytes = content.read(&image.id).ok()??;
            Some(
                manifest::parse_config(&bytes, image.layers.len())
                    .ok()?
                    .parsed,
            )
        };
        let metadata = Metadata::open(&config.root.join("metadata.redb"), read_config)?;
        let known = metadata.layers().iter().map(|layer| layer.id).collect();
        let found = layers.remove_orphans(&known).map_err(directory)?;
        metadata.retain_layers(&found)?;
        let roots = transport::default_roots(&config.extra_ca)?;
        let permits = Arc::new(Semaphore::new(config.max_parallel.max(1)));
        let inner = Inner {
            content,
            metadata,
            layers,
            inflight: InFlight::default(),
            permits,
            roots,
            snapshots,
            recording: Mutex::new(()),
            config,
        };
        inner.drop_broken_snapshots().map_err(OpenError::Snapshot)?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Pulls an image. A second pull that needs the same layers joins the first's work. Dropping
    /// the future or cancelling leaves finished layers for the next attempt.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<&Credentials>,
        cancel: CancellationToken,
    ) -> Result<Image, PullError> {
        tokio::select! {
            // Dropping the pull's future is safe: its tasks end with it and clean up.
            () = cancel.cancelled() => {
                Err(PullError::Cancelled { reference: reference.to_string() })
            }
            result = pull::pull(&self.inner, reference, auth) => result,
        }
    }

    /// Finds an image by name, id, or a prefix of one id.
    pub fn status(&self, name_or_id: &str) -> Option<Image> {
        self.inner
            .find(name_or_id)
            .map(|stored| self.inner.image(&stored))
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        self.inner
            .metadata
            .images()
            .iter()
            .map(|stored| self.inner.image(stored))
            .collect()
    }

    /// Removes an image: a tag alone while others remain, else the image with all its names and
    /// the layers nothing needs any more. Idempotent.
    pub async fn remove(&self, name_or_id: &str) -> Result<(), RemoveError> {
        let name = name_or_id.to_owned();
        self.blocking(move |inner| inner.remove(&name))
            .await
            .map_err(RemoveError::Ended)?
    }

    /// Use of the store's file system.
    pub fn fs_usage(&self) -> FsUsage {
        let snapshots = self.inner.snapshots.usage();
        let layers = self.inner.metadata.layers();
        FsUsage {
            mountpoint: self.inner.config.root.clone(),
            used_bytes: layers.iter().map(|layer| layer.bytes).sum::<u64>() + snapshots.bytes,
            inodes_used: layers.iter().map(|layer| layer.inodes).sum::<u64>() + snapshots.inodes,
        }
    }

    /// Makes the writable layer `key` on top of the image with this id; the same again returns the
    /// same.
    pub async fn prepare(&self, key: &str, image: &Digest) -> Result<Layers, SnapshotError> {
        let (key, image) = (key.to_owned(), image.clone());
        self.blocking(move |inner| inner.prepare(&key, &image))
            .await
            .map_err(SnapshotError::Ended)?
    }

    /// Removes the writable layer `key`. Idempotent.
    pub async fn remove_snapshot(&self, key: &str) -> Result<(), SnapshotError> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.snapshots.remove(&key))
            .await
            .map_err(SnapshotError::Ended)?
    }

    /// Measures the writable layer `key`.
    pub async fn snapshot_usage(&self, key: &str) -> Result<SnapshotUsage, SnapshotError> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.snapshots.measure(&key))
            .await
            .map_err(SnapshotError::Ended)?
    }

    /// Keys of all writable layers, for a reconcile pass to compare with the containers it knows.
    pub fn snapshots(&self) -> Vec<String> {
        self.inner.snapshots.keys()
    }

    /// Resolves a user in the image's /etc/passwd and /etc/group.
    pub async fn lookup_user(
        &self,
        image: &Digest,
        spec: &UserSpec,
    ) -> Result<ResolvedUser, LookupError> {
        let (image, spec) = (image.clone(), spec.clone());
        self.blocking(move |inner| inner.lookup_user(&image, &spec))
            .await
            .map_err(LookupError::Ended)?
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await
    }
}

impl Inner {
    /// Held while records and content must agree.
    pub fn recording(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own.
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What callers get to know about an image.
    pub fn image(&self, stored: &Stored) -> Image {
        let names = self.metadata.names(&stored.record.id);
        let (repo_digests, repo_tags): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| name.contains('@'));
        let pins = &self.config.pinned;
        let user = stored
            .config
            .config()
            .as_ref()
            .and_then(|config| config.user().clone());
        Image {
            id: stored.record.id.clone(),
            pinned: repo_tags
                .iter()
                .chain(&repo_digests)
                .any(|name| is_pinned(name, pins)),
            repo_tags,
            repo_digests,
            size: stored.record.size,
            user: user.filter(|user| !user.is_empty()),
            config: stored.config.clone(),
        }
    }

    /// A name is tried as a name first: an id's prefix must not hide an image.
    fn find(&self, name_or_id: &str) -> Option<Stored> {
        let named = Reference::parse(name_or_id).ok();
        let by_name = named.and_then(|reference| {
            let name = reference.canonical();
            self.metadata.find(&name)
        });
        by_name.or_else(|| self.metadata.find(name_or_id))
    }

    /// Directories of the layers with these chain ids, topmost first, cut below one that hides all
    /// others.
    pub fn lower(&self, chain: &[Digest]) -> Vec<PathBuf> {
        let mut lower = Vec::with_capacity(chain.len());
        for layer in chain
            .iter()
            .rev()
            .filter_map(|chain| self.metadata.layer(chain))
        {
            lower.push(self.layers.path(layer.id));
            if layer.opaque_root {
                break;
            }
        }
        lower
    }

    fn prepare(&self, key: &str, image: &Digest) -> Result<Layers, SnapshotError> {
        // Against a collection between reading the image and recording the snapshot.
        let _exclusive = self.recording();
        let stored = self
            .metadata
            .image(image)
            .ok_or_else(|| SnapshotError::NoImage(image.clone()))?;
        let mut lower = self.lower(&stored.record.layers);
        if lower.is_empty() {
            lower.push(self.layers.empty());
        }
        let base = Base {
            image: image.clone(),
            layers: stored.record.layers,
            lower,
        };
        self.snapshots.prepare(key, base)
    }

    fn lookup_user(&self, image: &Digest, spec: &UserSpec) -> Result<ResolvedUser, LookupError> {
        let stored = self
            .metadata
            .image(image)
            .ok_or_else(|| LookupError::NoImage(image.clone()))?;
        let trees: io::Result<Vec<Tree>> = self
            .lower(&stored.record.layers)
            .iter()
            .map(|path| Tree::open(path))
            .collect();
        let merged = Merged::new(trees.map_err(LookupError::Layers)?);
        let open = |file: &'static str| {
            let opened = merged.open_file(file.as_bytes());
            opened.map_err(|source| UserError::Read { file, source })
        };
        let (passwd, group) = (open("/etc/passwd")?, open("/etc/group")?);
        Ok(user::resolve(
            spec,
            passwd,
            group,
            self.config.limits.user_file,
        )?)
    }

    fn remove(&self, name_or_id: &str) -> Result<(), RemoveError> {
        let unneeded = self.forget(name_or_id)?;
        // Without the lock: this may take long, and no number is given out twice.
        for id in unneeded {
            let removed = self.layers.remove(id);
            removed.map_err(|source| RemoveError::Content {
                image: name_or_id.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// Removes an image or one of its tags from the records; answers the layers nothing needs now.
    fn forget(&self, name_or_id: &str) -> Result<Vec<u64>, RemoveError> {
        let _exclusive = self.recording();
        let Some(stored) = self.find(name_or_id) else {
            return Ok(Vec::new());
        };
        let image = self.image(&stored);
        let named = Reference::parse(name_or_id).ok();
        let tag = named.map(|reference| reference.canonical());
        match tag.filter(|tag| image.repo_tags.contains(tag)) {
            Some(tag) if image.repo_tags.len() > 1 => {
                self.metadata.remove_names(&[tag])?;
                return Ok(Vec::new());
            }
            _ => self.metadata.remove_image(&stored.record.id)?,
        }
        self.collect().map_err(|source| RemoveError::Content {
            image: name_or_id.to_owned(),
            source,
        })?;
        let (all, by_images) = self.metadata.layer_references();
        let needed = [by_images, self.snapshots.layer_references()];
        Ok(self
            .metadata
            .remove_layers(&gc::unreferenced(all, &needed))?)
    }

    /// Removes documents that no image needs.
    fn collect(&self) -> io::Result<()> {
        let images = self.metadata.images();
        let needed: HashSet<Digest> = images
            .iter()
            .flat_map(|stored| [stored.record.id.clone(), stored.record.manifest.clone()])
            .collect();
        for digest in gc::unreferenced(self.content.list()?, &[needed]) {
            self.content.remove(&digest)?;
        }
        Ok(())
    }

    /// Removes snapshots whose layers a power cut took away.
    fn drop_broken_snapshots(&self) -> Result<(), SnapshotError> {
        for key in self.snapshots.keys() {
            let needs = self.snapshots.layers_of(&key);
            if needs
                .iter()
                .any(|chain| self.metadata.layer(chain).is_none())
            {
                self.snapshots.remove(&key)?;
            }
        }
        Ok(())
    }
}

/// Whether a name matches a pattern in which `*` at the end stands for anything.
fn is_pinned(name: &str, patterns: &[String]) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => Reference::parse(pattern).is_ok_and(|reference| reference.canonical() == *name),
        })
}

#[cfg(test)]
mod tests;
