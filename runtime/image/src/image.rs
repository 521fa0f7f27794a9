//! What the store tells about an image and its layers.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

use crate::digest::Digest;

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the image configuration: the CRI image id.
    pub id: Digest,
    /// `repository:tag` names, canonical, sorted.
    pub repo_tags: Vec<String>,
    /// `repository@digest` names, canonical, sorted; the digest is of the manifest or index that
    /// the name led to.
    pub repo_digests: Vec<String>,
    /// Bytes of manifest, configuration and compressed layers, as the manifest states them.
    pub size: u64,
    /// `config.User` of the image; `None` when empty.
    pub user: Option<String>,
    /// The image configuration.
    pub config: ImageConfiguration,
    /// Whether a name of the image is pinned by configuration.
    pub pinned: bool,
}

/// The directories one container's overlay mount is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// overlayfs's work directory, on the upper's file system.
    pub work: PathBuf,
}

/// Use of the file system that holds the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// Where the store lives; the file system is the one mounted there.
    pub mountpoint: PathBuf,
    /// Bytes on disk of image layers, and of writable snapshots as last measured.
    pub used_bytes: u64,
    /// Inodes of the same.
    pub inodes_used: u64,
}
