//! Fixtures of this crate's tests: archives, images, a registry with switches, stores.

pub(crate) mod archive;
pub(crate) mod image;
pub(crate) mod registry;

use std::path::Path;

use crate::{CancellationToken, Config, Credentials, Image, ImageStore, PullError, Reference};

/// A store in a directory of its own.
pub(crate) struct TestStore {
    pub dir: tempfile::TempDir,
    pub store: ImageStore,
}

impl TestStore {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("images"), dir.path().join("certs.d"));
        change(&mut config);
        let store = ImageStore::open(config).unwrap();
        Self { dir, store }
    }

    pub fn config(&self) -> Config {
        Config::new(
            self.dir.path().join("images"),
            self.dir.path().join("certs.d"),
        )
    }

    pub fn hosts(&self, host: &str, text: &str) {
        let dir = self.dir.path().join("certs.d").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    pub async fn pull(&self, name: &str) -> Result<Image, PullError> {
        self.pull_as(name, None).await
    }

    pub async fn pull_as(
        &self,
        name: &str,
        auth: Option<&Credentials>,
    ) -> Result<Image, PullError> {
        let reference = Reference::parse(name).unwrap();
        self.store
            .pull(&reference, auth, CancellationToken::new())
            .await
    }
}

/// Whether the tests that change owners and make devices can run; prints why not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Everything below a directory, one line each: path, type and mode, owner, content or target,
/// overlay marks.
pub(crate) fn describe_tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    describe_below(root, root, &mut lines);
    lines.sort();
    lines
}

fn describe_below(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let owner = format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
        let kind = meta.file_type();
        let text = if kind.is_dir() {
            let opaque = rustix::fs::getxattr(&path, "trusted.overlay.opaque", &mut [0u8; 4][..]);
            format!("dir{}", if opaque.is_ok() { " opaque" } else { "" })
        } else if kind.is_symlink() {
            format!("-> {}", std::fs::read_link(&path).unwrap().display())
        } else if kind.is_char_device() && meta.rdev() == 0 {
            lines.push(format!("{name} whiteout"));
            continue;
        } else if kind.is_char_device() || kind.is_block_device() {
            format!(
                "device {}:{}",
                rustix::fs::major(meta.rdev()),
                rustix::fs::minor(meta.rdev())
            )
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            format!(
                "{:?} links {}",
                String::from_utf8_lossy(&std::fs::read(&path).unwrap()),
                meta.nlink()
            )
        };
        lines.push(format!("{name} {owner} {text}"));
        if kind.is_dir() {
            describe_below(root, &path, lines);
        }
    }
}
