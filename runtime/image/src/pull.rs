//! The pull state machine: resolve, documents, layers in parallel, record.

use std::fs::File;
use std::sync::Arc;

use berth_sys::crash_point;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::config::Credentials;
use crate::digest::Digest;
use crate::download::{Download, Follower};
use crate::image::Image;
use crate::layer::UnpackError;
use crate::layer::apply::Applied;
use crate::layer::merged::Merged;
use crate::layer::tree::Tree;
use crate::layer::unpack::{self, Expected};
use crate::manifest::{self, Descriptor, Document, Manifest};
use crate::reference::Reference;
use crate::registry::RegistryError;
use crate::registry::blob;
use crate::registry::client::{Host, Session, SharedSession};
use crate::registry::{hosts, transport};
use crate::snapshot::metadata::{ImageRecord, LayerRecord, Stored};
use crate::store::{Inner, PullError};

/// Indexes that lead to indexes; one level is usual.
const MAX_NESTING: usize = 3;

/// A manifest with everything that came on the way to it.
struct Found {
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
}

/// Shared by the layer tasks of one pull.
struct Context {
    store: Arc<Inner>,
    session: SharedSession,
    image: String,
}

/// Keeps layers from being collected while a pull needs them.
struct Lease {
    store: Arc<Inner>,
    chain: Vec<Digest>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.metadata.release(&self.chain);
    }
}

/// One layer's part of a pull.
struct LayerTask {
    context: Arc<Context>,
    layer: Expected,
    /// Its chain id, and those below it, bottom first.
    chain: Digest,
    chain_below: Vec<Digest>,
}

/// How a layer task ends without success.
enum LayerFailure {
    /// The layer itself failed.
    Own(PullError),
    /// A layer below failed; its own task says why.
    Below,
}

impl From<PullError> for LayerFailure {
    fn from(error: PullError) -> Self {
        Self::Own(error)
    }
}

/// Pulls `reference` into the store.
pub(crate) async fn pull(
    store: &Arc<Inner>,
    reference: &Reference,
    credentials: Option<&Credentials>,
) -> Result<Image, PullError> {
    let session = open_session(store, reference, credentials)?;
    let resolve_failed = |cause| PullError::Resolve {
        reference: reference.to_string(),
        cause,
    };
    // A digest is asked for as well: whether these credentials may have the image is the
    // registry's word, not the store's.
    let resolved = session
        .resolve(reference.manifest_name(), reference.digest())
        .await
        .map_err(resolve_failed)?;
    let target = resolved.digest;
    let names = names(reference, &target);
    if let Some(image) = already_there(store, reference, &target, &names).await? {
        return Ok(image);
    }
    let document = match resolved.document {
        Some(document) => document,
        None => session.manifest(&target).await.map_err(resolve_failed)?,
    };
    let found = find_manifest(store, &session, reference, target, document).await?;
    let (config, config_bytes) = fetch_config(&session, reference, &found.manifest).await?;
    let context = Context {
        store: Arc::clone(store),
        session,
        image: reference.to_string(),
    };
    let lease = pull_layers(context, &found.manifest.layers, &config.diff_ids).await?;
    let record = ImageRecord {
        id: found.manifest.config.digest.clone(),
        manifest: found.digest.clone(),
        layers: lease.chain.clone(),
        size: found
            .manifest
            .content_size()
            .saturating_add(found.bytes.len() as u64),
    };
    let stored = Stored {
        record,
        config: config.parsed,
    };
    let documents = vec![
        (found.digest, found.bytes),
        (stored.record.id.clone(), config_bytes),
    ];
    record_image(store, reference, stored, documents, names).await
}

fn open_session(
    store: &Arc<Inner>,
    reference: &Reference,
    credentials: Option<&Credentials>,
) -> Result<SharedSession, PullError> {
    let config = &store.config;
    let endpoints =
        hosts::endpoints(&config.hosts_dir, reference.domain()).map_err(PullError::Hosts)?;
    let resolver = transport::Resolver::from_system().map_err(PullError::Transport)?;
    let hosts: Result<Vec<Host>, PullError> = endpoints
        .into_iter()
        .map(|endpoint| {
            let http = transport::client(&endpoint, resolver.clone(), &store.roots)
                .map_err(PullError::Transport)?;
            Ok(Host::new(endpoint, http, credentials))
        })
        .collect();
    Ok(Arc::new(Session {
        hosts: hosts?,
        repository: reference.path().to_owned(),
        limit: config.limits.document,
        range_size: config.range_size.max(1),
    }))
}

/// The names under which the image is then known: tag (unless pinned by digest) and digest.
fn names(reference: &Reference, target: &Digest) -> Vec<String> {
    let pinned = reference.with_digest(target.clone()).canonical();
    match reference.digest() {
        Some(_) => vec![pinned],
        None => vec![reference.canonical(), pinned],
    }
}

/// The image, if what the name leads to is in the store already.
async fn already_there(
    store: &Arc<Inner>,
    reference: &Reference,
    target: &Digest,
    names: &[String],
) -> Result<Option<Image>, PullError> {
    let pinned = reference.with_digest(target.clone()).canonical();
    let Some(stored) = store.metadata.find(&pinned) else {
        return Ok(None);
    };
    let known = store.metadata.names(&stored.record.id);
    if names.iter().all(|name| known.contains(name)) {
        return Ok(Some(store.image(&stored)));
    }
    let (id, names) = (stored.record.id.clone(), names.to_vec());
    in_background(store, reference, move |store| {
        let _exclusive = store.recording();
        // Removed meanwhile: it is pulled anew.
        if store.metadata.image(&id).is_none() {
            return Ok(None);
        }
        let recorded = store.metadata.record_image(stored.clone(), &names);
        recorded.map_err(PullError::Metadata)?;
        Ok(Some(store.image(&stored)))
    })
    .await
}

fn fetch_error(reference: &Reference, what: &'static str, cause: RegistryError) -> PullError {
    PullError::Fetch {
        reference: reference.to_string(),
        what,
        cause,
    }
}

async fn fetch_config(
    session: &Session,
    reference: &Reference,
    image: &Manifest,
) -> Result<(manifest::Config, Vec<u8>), PullError> {
    let bytes = session
        .config(&image.config.digest)
        .await
        .map_err(|cause| fetch_error(reference, "image configuration", cause))?;
    let config = manifest::parse_config(&bytes, image.layers.len());
    let config = config.map_err(|cause| PullError::Manifest {
        reference: reference.to_string(),
        cause,
    })?;
    Ok((config, bytes.to_vec()))
}

/// Goes from an index to the manifest for this machine.
async fn find_manifest(
    store: &Inner,
    session: &Session,
    reference: &Reference,
    target: Digest,
    document: (bytes::Bytes, Option<String>),
) -> Result<Found, PullError> {
    let malformed = |cause| PullError::Manifest {
        reference: reference.to_string(),
        cause,
    };
    let limits = &store.config.limits;
    let mut digest = target;
    let (mut bytes, mut media_type) = document;
    for _ in 0..MAX_NESTING {
        match manifest::parse(&bytes, media_type.as_deref(), limits).map_err(malformed)? {
            Document::Manifest(manifest) => {
                return Ok(Found {
                    digest,
                    bytes: bytes.to_vec(),
                    manifest,
                });
            }
            Document::Index(entry) => {
                let fetched = session.manifest(&entry.digest).await;
                let fetched = fetched.map_err(|cause| fetch_error(reference, "manifest", cause))?;
                bytes = fetched.0;
                // What the index says binds more than what the host says.
                let stated = Some(entry.media_type).filter(|stated| !stated.is_empty());
                media_type = stated.or(fetched.1);
                digest = entry.digest;
            }
        }
    }
    Err(malformed(manifest::ManifestError::Bounds("nested indexes")))
}

/// Brings all layers into the store; the answer keeps them there until the image is recorded.
async fn pull_layers(
    context: Context,
    layers: &[Descriptor],
    diff_ids: &[Digest],
) -> Result<Lease, PullError> {
    let chain = manifest::chain_ids(diff_ids);
    let store = Arc::clone(&context.store);
    store.metadata.lease(&chain);
    let lease = Lease {
        store,
        chain: chain.clone(),
    };
    let context = Arc::new(context);
    let mut tasks = JoinSet::new();
    let mut below: Option<oneshot::Receiver<()>> = None;
    for (at, (descriptor, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
        let (done, done_here) = oneshot::channel();
        let task = LayerTask {
            context: Arc::clone(&context),
            layer: Expected {
                digest: descriptor.digest.clone(),
                size: descriptor.size,
                diff_id: diff_id.clone(),
            },
            chain: chain[at].clone(),
            chain_below: chain[..at].to_vec(),
        };
        tasks.spawn(task.run(below.replace(done_here), done));
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(()) | Err(LayerFailure::Below)) => {}
            // The set's end aborts the other tasks.
            Ok(Err(LayerFailure::Own(error))) => return Err(error),
            Err(cause) => {
                return Err(PullError::Ended {
                    reference: context.image.clone(),
                    cause,
                });
            }
        }
    }
    Ok(lease)
}

impl LayerTask {
    async fn run(
        self,
        below: Option<oneshot::Receiver<()>>,
        done: oneshot::Sender<()>,
    ) -> Result<(), LayerFailure> {
        let store = &self.context.store;
        let gate = store.inflight.enter(&self.chain).await;
        if store.metadata.layer(&self.chain).is_none() {
            let (dir, applied) = self.fetch_and_unpack().await?;
            if let Some(below) = below {
                below.await.map_err(|_| LayerFailure::Below)?;
            }
            self.complete(dir, applied).await?;
        }
        drop(gate);
        // Nobody waits for the topmost layer.
        let _ = done.send(());
        Ok(())
    }

    /// Downloads the layer while a thread unpacks what has arrived.
    async fn fetch_and_unpack(&self) -> Result<(TempDir, Applied), PullError> {
        let store = &self.context.store;
        let permit = Arc::clone(&store.permits).acquire_owned().await;
        let file = store
            .content
            .nameless_file()
            .map_err(|e| self.store_error("make a download", e))?;
        let dir = store
            .layers
            .new_dir()
            .map_err(|e| self.store_error("make a layer", e))?;
        let (download, follower) = Download::new(file, self.layer.size, &self.layer.digest);
        let guard = download.fail_on_drop();
        let unpacking = self.start_unpacking(follower, dir);
        let session = &self.context.session;
        let (digest, size) = (&self.layer.digest, self.layer.size);
        let fetched = blob::fetch(session, digest, size, &download, &store.permits).await;
        match fetched {
            Ok(()) => guard.disarm(),
            Err(_) => drop(guard),
        }
        let unpacked = unpacking.await.map_err(|cause| self.ended(cause))?;
        drop(permit);
        match fetched {
            Ok(()) | Err(RegistryError::GivenUp) => {}
            Err(cause) => return Err(self.fetch_error(cause)),
        }
        unpacked.map_err(|cause| PullError::Layer {
            reference: self.context.image.clone(),
            layer: self.layer.digest.clone(),
            cause,
        })
    }

    fn start_unpacking(
        &self,
        follower: Follower,
        dir: TempDir,
    ) -> tokio::task::JoinHandle<Result<(TempDir, Applied), UnpackError>> {
        let expected = self.layer.clone();
        let limits = self.context.store.config.limits;
        tokio::task::spawn_blocking(move || {
            let applied = unpack::unpack(follower, &expected, dir.path(), &limits)?;
            Ok((dir, applied))
        })
    }

    /// Completes the layer from those below it and gives it its place.
    async fn complete(&self, dir: TempDir, applied: Applied) -> Result<(), PullError> {
        let store = Arc::clone(&self.context.store);
        let (chain, chain_below) = (self.chain.clone(), self.chain_below.clone());
        let completing = tokio::task::spawn_blocking(move || -> Result<(), UnpackError> {
            let failed = |step| move |cause| UnpackError::Io { step, cause };
            let below: std::io::Result<Vec<Tree>> = store
                .lower(&chain_below)
                .iter()
                .map(|path| Tree::open(path))
                .collect();
            let below = Merged::new(below.map_err(failed("open the layers below"))?);
            let tree = Tree::open(dir.path()).map_err(failed("open the layer's directory"))?;
            below.complete(&tree, &applied)?;
            crash_point!("pull: layer unpacked");
            let id = store.metadata.next_layer_id();
            store
                .layers
                .keep(dir, id)
                .map_err(failed("keep the layer"))?;
            crash_point!("pull: layer kept");
            let record = LayerRecord {
                id,
                bytes: applied.bytes,
                inodes: applied.inodes,
                opaque_root: applied.opaque_root,
            };
            store.metadata.add_layer(chain, record);
            Ok(())
        });
        completing
            .await
            .map_err(|cause| self.ended(cause))?
            .map_err(|cause| PullError::Layer {
                reference: self.context.image.clone(),
                layer: self.layer.digest.clone(),
                cause,
            })
    }

    fn store_error(&self, step: &'static str, cause: std::io::Error) -> PullError {
        PullError::Store {
            reference: self.context.image.clone(),
            step,
            cause,
        }
    }

    fn fetch_error(&self, cause: RegistryError) -> PullError {
        PullError::Fetch {
            reference: self.context.image.clone(),
            what: "layer",
            cause,
        }
    }

    fn ended(&self, cause: tokio::task::JoinError) -> PullError {
        PullError::Ended {
            reference: self.context.image.clone(),
            cause,
        }
    }
}

/// Makes the image durable and known.
async fn record_image(
    store: &Arc<Inner>,
    reference: &Reference,
    stored: Stored,
    documents: Vec<(Digest, Vec<u8>)>,
    names: Vec<String>,
) -> Result<Image, PullError> {
    let name = reference.to_string();
    in_background(store, reference, move |store| {
        let failed = |step| {
            let reference = name.clone();
            move |cause| PullError::Store {
                reference,
                step,
                cause,
            }
        };
        if store.config.sync {
            // Before the lock: this may take long, and starting containers waits for the lock.
            let root = File::open(&store.config.root).map_err(failed("open the store"))?;
            rustix::fs::syncfs(&root).map_err(|e| failed("flush the store")(e.into()))?;
        }
        crash_point!("pull: layers flushed");
        let _exclusive = store.recording();
        for (digest, bytes) in &documents {
            store
                .content
                .write(digest, bytes)
                .map_err(failed("store a document"))?;
        }
        crash_point!("pull: documents stored");
        let recorded = store.metadata.record_image(stored.clone(), &names);
        recorded.map_err(PullError::Metadata)?;
        crash_point!("pull: image recorded");
        Ok(store.image(&stored))
    })
    .await
}

/// Runs blocking work on the store.
async fn in_background<T: Send + 'static>(
    store: &Arc<Inner>,
    reference: &Reference,
    work: impl FnOnce(&Inner) -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    let store = Arc::clone(store);
    let ended = tokio::task::spawn_blocking(move || work(&store)).await;
    ended.map_err(|cause| PullError::Ended {
        reference: reference.to_string(),
        cause,
    })?
}
