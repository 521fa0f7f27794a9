//! What the image store is told: where it lives, whom it may ask, and its bounds.

use std::fmt;
use std::path::PathBuf;

/// Configuration of one [`crate::ImageStore`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The store's directory, made 0700. Must lie on a file system that can be an overlay upper.
    pub root: PathBuf,
    /// containerd's `certs.d` format: `<hosts_dir>/<host>/hosts.toml`, `_default` for the rest.
    pub hosts_dir: PathBuf,
    /// PEM files with certificate authorities trusted besides the system's.
    pub extra_ca: Vec<PathBuf>,
    /// Layers (and ranges of large layers) fetched at the same time, over all pulls.
    pub max_parallel: usize,
    /// Bytes of one range of a large layer. Layers of four ranges and more are fetched by several
    /// ranges at once, where the registry can.
    pub range_size: u64,
    /// Globs of image names that are reported as pinned, so that image GC leaves them alone.
    pub pinned: Vec<String>,
    /// Whether a pull flushes the file system before its image is recorded, so that a power cut
    /// cannot leave a recorded image with empty files.
    pub sync: bool,
    /// Bounds on what an image may make this host do.
    pub limits: Limits,
}

impl Config {
    /// The defaults for a store at `root`.
    pub fn new(root: impl Into<PathBuf>, hosts_dir: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            hosts_dir: hosts_dir.into(),
            extra_ca: Vec::new(),
            max_parallel: 4,
            range_size: 8 << 20,
            pinned: Vec::new(),
            sync: true,
            limits: Limits::default(),
        }
    }
}

/// Bounds on one image.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a manifest, index or image configuration.
    pub document: u64,
    /// Layers of an image (overlayfs itself ends at 500).
    pub layers: usize,
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes of one layer, uncompressed.
    pub layer_bytes: u64,
    /// Uncompressed over compressed size, once a layer is beyond `ratio_free` bytes.
    pub ratio: u64,
    /// Uncompressed bytes up to which no ratio is demanded.
    pub ratio_free: u64,
    /// Bytes of `/etc/passwd` or `/etc/group` that a user lookup reads.
    pub user_file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document: 8 << 20,
            layers: 256,
            entries: 1_500_000,
            layer_bytes: 256 << 30,
            ratio: 200,
            ratio_free: 1 << 30,
            user_file: 4 << 20,
        }
    }
}

/// Credentials for the registry an image name belongs to; never sent to any other host, except
/// that `Basic` and `IdentityToken` go to the token service that this registry names within its
/// own domain.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Basic {
        /// The user's name.
        username: String,
        /// Its password or access token.
        password: String,
    },
    /// A registry token, sent as it is.
    Bearer(String),
    /// An OAuth2 refresh token, exchanged at the token service.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    /// Names the kind only: credentials never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Credentials::Basic",
            Self::Bearer(_) => "Credentials::Bearer",
            Self::IdentityToken(_) => "Credentials::IdentityToken",
        })
    }
}
