//! Directories of unpacked layers: `layers/<id>`, read-only once they have their number.
//!
//! A directory gets its number by rename when it is complete, and its record afterwards: what has
//! no record after a crash is an orphan and is removed when the store opens.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::content::private_dir;

const NEW: &str = "new-";
const GONE: &str = "gone-";
/// An empty lower layer for images without layers: overlayfs wants at least one.
const EMPTY: &str = "empty";

#[derive(Debug)]
pub(crate) struct LayerDirs {
    dir: PathBuf,
}

impl LayerDirs {
    pub fn open(root: &Path) -> io::Result<Self> {
        let dir = root.join("layers");
        private_dir(&dir)?;
        let empty = dir.join(EMPTY);
        private_dir(&empty)?;
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir })
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    pub fn empty(&self) -> PathBuf {
        self.dir.join(EMPTY)
    }

    /// A directory to unpack into; it vanishes unless kept.
    pub fn new_dir(&self) -> io::Result<TempDir> {
        let dir = tempfile::Builder::new().prefix(NEW).tempdir_in(&self.dir)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(dir)
    }

    /// Gives a complete directory its number.
    pub fn keep(&self, dir: TempDir, id: u64) -> io::Result<()> {
        fs::rename(dir.path(), self.path(id))?;
        // The directory is no longer where its guard would look for it.
        let _ = dir.keep();
        Ok(())
    }

    /// Removes a layer that nothing refers to. Idempotent.
    pub fn remove(&self, id: u64) -> io::Result<()> {
        remove_tree(&self.dir, &id.to_string())
    }

    /// Removes every directory that is not one of `known`; answers the numbers found.
    pub fn remove_orphans(&self, known: &HashSet<u64>) -> io::Result<HashSet<u64>> {
        let mut found = HashSet::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            match name.parse::<u64>() {
                Ok(id) if known.contains(&id) => {
                    found.insert(id);
                }
                _ if name == EMPTY => {}
                _ => remove_tree(&self.dir, &name)?,
            }
        }
        Ok(found)
    }
}

/// Removes the directory `name` of `parent`: gone under its name at once, then for real.
pub(crate) fn remove_tree(parent: &Path, name: &str) -> io::Result<()> {
    let path = parent.join(name);
    let gone = if name.starts_with(GONE) {
        path.clone()
    } else {
        parent.join(format!("{GONE}{name}"))
    };
    if gone != path {
        match fs::rename(&path, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
    }
    fs::remove_dir_all(&gone)
}
