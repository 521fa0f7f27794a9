//! Images: registry client, content store, unpacking, overlay snapshots.
//!
//! [`ImageStore`] is the one entry point. A pull resolves a [`Reference`] at the registry (or a
//! mirror of `hosts.toml`), verifies every byte against its digest, and unpacks each layer into a
//! directory of its own; [`ImageStore::prepare`] stacks these directories for one container.
//!
//! Invariant: nothing a registry or an image says chooses a path of the host. Paths inside a layer
//! are only walked by `openat2` below that layer's root.

mod config;
mod content;
mod digest;
mod download;
mod gc;
mod image;
mod inflight;
mod layer;
mod manifest;
mod pull;
mod reference;
mod registry;
mod snapshot;
mod store;
mod user;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "fixtures write on the host, in directories of their own"
)]
mod testing;

pub use config::{Config, Credentials, Limits};
pub use digest::{Digest, DigestError};
pub use image::{FsUsage, Image, Layers};
pub use layer::{ApplyError, ArchiveError, UnpackError};
pub use manifest::ManifestError;
pub use reference::{Reference, ReferenceError};
pub use registry::{HostsError, RegistryError, TransportError};
pub use snapshot::MetadataError;
pub use store::{
    ImageStore, LookupError, OpenError, PullError, RemoveError, SnapshotError, SnapshotUsage,
};
pub use tokio_util::sync::CancellationToken;
pub use user::{Principal, ResolvedUser, UserError, UserSpec, UserSpecError};
