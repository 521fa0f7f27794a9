//! The user's cache folder: what is built once from packages and reused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// `$XDG_CACHE_HOME/berth`, or `~/.cache/berth`.
#[derive(Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the folder, making it when it is absent.
    pub fn open() -> Result<Self> {
        let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
                .join(".cache"),
        };
        let root = base.join("berth");
        fs::create_dir_all(&root)
            .with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A part of the cache, as a cache of its own.
    pub fn section(&self, name: &str) -> Result<Self> {
        Ok(Self {
            root: self.folder(name)?,
        })
    }

    /// A folder of this name that is kept and changed in place.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Holds the lock of this name until the returned file is dropped.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// The artifact `name` made from `recipe`: built by `build` into an empty
    /// folder when it is absent, kept under a name that holds the recipe's hash.
    pub fn artifact(
        &self,
        name: &str,
        recipe: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let key = &digest(recipe.as_bytes())[..16];
        let ready = self.root.join(format!("{name}-{key}"));
        let _lock = self.lock(name)?;
        if ready.exists() {
            return Ok(ready);
        }
        let staging = tempfile::Builder::new()
            .prefix(&format!(".{name}-"))
            .tempdir_in(&self.root)
            .context("cannot make a staging folder in the cache")?;
        build(staging.path()).with_context(|| format!("cannot make {name}"))?;
        let built = staging.keep();
        fs::rename(&built, &ready)
            .with_context(|| format!("cannot put {} in place", ready.display()))?;
        // tempfile makes its folders 0700; QEMU and the registry may run as another user.
        fs::set_permissions(&ready, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(ready)
    }
}

/// The SHA-256 of `bytes` in lower-case hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
