//! One error per operation of the store.

use std::io;
use std::path::PathBuf;

use tokio::task::JoinError;

use crate::digest::Digest;
use crate::layer::UnpackError;
use crate::manifest::ManifestError;
use crate::registry::{HostsError, RegistryError, TransportError};
use crate::snapshot::MetadataError;
use crate::user::UserError;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory of the store cannot be made or read.
    #[error("cannot prepare the image store `{path}`")]
    Directory {
        /// The store.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The metadata cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A certificate authority of the configuration cannot be read.
    #[error(transparent)]
    Trust(#[from] TransportError),
    /// A snapshot without layers cannot be removed.
    #[error(transparent)]
    Snapshot(SnapshotError),
}

/// Why a pull failed. The text carries the registry's own reason: it is what `kubectl describe`
/// shows, so here alone the cause stands in the text.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The hosts of the registry cannot be known.
    #[error("cannot pull: {0}")]
    Hosts(HostsError),
    /// A host's client cannot be made.
    #[error("cannot pull: {0}")]
    Transport(TransportError),
    /// The name leads to nothing.
    #[error("failed to resolve reference \"{reference}\": {cause}")]
    Resolve {
        /// The image.
        reference: String,
        /// The registry's answer.
        cause: RegistryError,
    },
    /// Content that the manifest names cannot be fetched.
    #[error("failed to pull image \"{reference}\": {what}: {cause}")]
    Fetch {
        /// The image.
        reference: String,
        /// Manifest, configuration or layer.
        what: &'static str,
        /// The registry's answer.
        cause: RegistryError,
    },
    /// The documents are not an image for this machine.
    #[error("failed to pull image \"{reference}\": {cause}")]
    Manifest {
        /// The image.
        reference: String,
        /// What is wrong.
        cause: ManifestError,
    },
    /// A layer cannot be unpacked.
    #[error("failed to unpack image \"{reference}\": layer {layer}: {cause}")]
    Layer {
        /// The image.
        reference: String,
        /// The blob.
        layer: Digest,
        /// What is wrong.
        cause: UnpackError,
    },
    /// The store's disk failed.
    #[error("failed to pull image \"{reference}\": cannot {step}: {cause}")]
    Store {
        /// The image.
        reference: String,
        /// What was done.
        step: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The metadata cannot be written.
    #[error(transparent)]
    Metadata(MetadataError),
    /// The caller gave up.
    #[error("pull of \"{reference}\" was cancelled")]
    Cancelled {
        /// The image.
        reference: String,
    },
    /// A task of the pull ended without an answer: a fault of this program, not of the image.
    #[error("pull of \"{reference}\" ended abnormally: {cause}")]
    Ended {
        /// The image.
        reference: String,
        /// The cause.
        cause: JoinError,
    },
}

impl PullError {
    /// Whether trying again later may succeed without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Resolve { cause, .. } | Self::Fetch { cause, .. } => cause.is_retryable(),
            Self::Layer { cause, .. } => matches!(cause, UnpackError::Digest(_)),
            Self::Cancelled { .. } | Self::Store { .. } | Self::Metadata(_) => true,
            Self::Hosts(_) | Self::Transport(_) | Self::Manifest { .. } | Self::Ended { .. } => {
                false
            }
        }
    }

    /// Whether the registry says that there is no such image.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Resolve { cause, .. } | Self::Fetch { cause, .. } if cause.is_not_found())
    }
}

/// Why an image could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The metadata could not be written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Unreferenced content could not be removed.
    #[error("cannot remove content of image `{image}`")]
    Content {
        /// The image as named by the caller.
        image: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The work ended without an answer.
    #[error("removal ended abnormally")]
    Ended(#[source] JoinError),
}

/// Why a snapshot operation failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The image is not in the store.
    #[error("image `{0}` not found")]
    NoImage(Digest),
    /// The key cannot be a directory's name.
    #[error("snapshot key `{0}` is malformed")]
    Key(String),
    /// There is no such snapshot.
    #[error("snapshot `{0}` not found")]
    NoSnapshot(String),
    /// The key is in use with another image.
    #[error("snapshot `{0}` exists with another image")]
    OtherImage(String),
    /// The snapshot's directories cannot be made or removed.
    #[error("cannot write snapshot `{key}`")]
    Write {
        /// The snapshot.
        key: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The snapshot cannot be measured.
    #[error("cannot measure snapshot `{key}`")]
    Measure {
        /// The snapshot.
        key: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The work ended without an answer.
    #[error("snapshot operation ended abnormally")]
    Ended(#[source] JoinError),
}

/// Why a user lookup failed.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The image is not in the store.
    #[error("image `{0}` not found")]
    NoImage(Digest),
    /// The image's layers cannot be opened.
    #[error("cannot open the image's layers")]
    Layers(#[source] io::Error),
    /// The user cannot be resolved.
    #[error(transparent)]
    User(#[from] UserError),
    /// The work ended without an answer.
    #[error("user lookup ended abnormally")]
    Ended(#[source] JoinError),
}
