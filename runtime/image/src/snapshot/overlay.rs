//! Writable snapshots: an upper and a work directory per container.
//!
//! A snapshot is made by one rename and needs no flush: what a power cut takes away is a container
//! that no longer runs. Its record names the image and the layers it stands on, which it keeps from
//! being collected.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Dir, FileType};
use serde::{Deserialize, Serialize};

use super::layers::remove_tree;
use crate::content::private_dir;
use crate::digest::Digest;
use crate::image::Layers;
use crate::layer::merged::copy_description;
use crate::layer::tree::{self, Tree};
use crate::store::{SnapshotError, SnapshotUsage};

const MAX_KEY: usize = 128;
const RECORD: &str = "record.json";
/// Directories deeper than this are not measured; PATH_MAX allows no more.
const MAX_DEPTH: usize = 2048;

/// What a snapshot stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// The image's id.
    pub image: Digest,
    /// Chain ids, bottom first.
    pub layers: Vec<Digest>,
    /// Directories, topmost first.
    pub lower: Vec<PathBuf>,
}

struct Snapshot {
    base: Base,
    usage: SnapshotUsage,
}

pub(crate) struct Snapshots {
    dir: PathBuf,
    known: Mutex<BTreeMap<String, Snapshot>>,
}

impl Snapshots {
    /// Reads the snapshots there are; remains of interrupted steps are removed.
    pub fn open(root: &Path) -> io::Result<Self> {
        let dir = root.join("snapshots");
        private_dir(&dir)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy().into_owned();
            match read_base(&dir.join(&name)) {
                Some(base) if is_key(&name) => {
                    known.insert(
                        name,
                        Snapshot {
                            base,
                            usage: SnapshotUsage::default(),
                        },
                    );
                }
                _ => remove_tree(&dir, &name)?,
            }
        }
        Ok(Self {
            dir,
            known: Mutex::new(known),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Snapshot>> {
        // Every change is a single insertion or removal.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the snapshot `key`, or finds it if it stands on the same image.
    pub fn prepare(&self, key: &str, base: Base) -> Result<Layers, SnapshotError> {
        if !is_key(key) {
            return Err(SnapshotError::Key(key.to_owned()));
        }
        let mut known = self.known();
        if let Some(snapshot) = known.get(key) {
            if snapshot.base.image != base.image {
                return Err(SnapshotError::OtherImage(key.to_owned()));
            }
            return Ok(self.layers(key, &snapshot.base));
        }
        self.make(key, &base)
            .map_err(|source| SnapshotError::Write {
                key: key.to_owned(),
                source,
            })?;
        let layers = self.layers(key, &base);
        known.insert(
            key.to_owned(),
            Snapshot {
                base,
                usage: SnapshotUsage::default(),
            },
        );
        Ok(layers)
    }

    fn make(&self, key: &str, base: &Base) -> io::Result<()> {
        let new = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&self.dir)?;
        private_dir(&new.path().join("upper"))?;
        private_dir(&new.path().join("work"))?;
        let record = fs::File::create_new(new.path().join(RECORD))?;
        serde_json::to_writer(record, base)?;
        // The container's root directory is the upper one: it gets what the image gave its root.
        if let Some(top) = base.lower.first() {
            let upper = Tree::open(&new.path().join("upper"))?;
            let stat = rustix::fs::fstat(Tree::open(top)?.root())?;
            copy_description(&stat, &upper.root().try_clone_to_owned()?)?;
        }
        fs::rename(new.path(), self.dir.join(key))?;
        // The directory is no longer where its guard would look for it.
        let _ = new.keep();
        Ok(())
    }

    fn layers(&self, key: &str, base: &Base) -> Layers {
        let dir = self.dir.join(key);
        Layers {
            lower: base.lower.clone(),
            upper: dir.join("upper"),
            work: dir.join("work"),
        }
    }

    /// Removes a snapshot and what the container wrote. Idempotent.
    pub fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        if !is_key(key) {
            return Err(SnapshotError::Key(key.to_owned()));
        }
        self.known().remove(key);
        remove_tree(&self.dir, key).map_err(|source| SnapshotError::Write {
            key: key.to_owned(),
            source,
        })
    }

    /// Measures what the container wrote.
    pub fn measure(&self, key: &str) -> Result<SnapshotUsage, SnapshotError> {
        if !self.known().contains_key(key) {
            return Err(SnapshotError::NoSnapshot(key.to_owned()));
        }
        let usage = disk_usage(&self.dir.join(key).join("upper")).map_err(|source| {
            SnapshotError::Measure {
                key: key.to_owned(),
                source,
            }
        })?;
        if let Some(snapshot) = self.known().get_mut(key) {
            snapshot.usage = usage;
        }
        Ok(usage)
    }

    /// The sum of the last measurements.
    pub fn usage(&self) -> SnapshotUsage {
        self.known()
            .values()
            .fold(SnapshotUsage::default(), |sum, snapshot| SnapshotUsage {
                bytes: sum.bytes + snapshot.usage.bytes,
                inodes: sum.inodes + snapshot.usage.inodes,
            })
    }

    /// Chain ids that snapshots stand on.
    pub fn layer_references(&self) -> HashSet<Digest> {
        self.known()
            .values()
            .flat_map(|snapshot| snapshot.base.layers.clone())
            .collect()
    }

    /// Chain ids that one snapshot stands on.
    pub fn layers_of(&self, key: &str) -> Vec<Digest> {
        self.known()
            .get(key)
            .map(|snapshot| snapshot.base.layers.clone())
            .unwrap_or_default()
    }

    /// Keys in use.
    pub fn keys(&self) -> Vec<String> {
        self.known().keys().cloned().collect()
    }
}

fn read_base(dir: &Path) -> Option<Base> {
    let file = fs::File::open(dir.join(RECORD)).ok()?;
    serde_json::from_reader(io::BufReader::new(file)).ok()
}

/// A key is a directory's name that cannot be confused with ours.
fn is_key(key: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    key.len() <= MAX_KEY
        && key.bytes().all(inner)
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !key.starts_with("new-")
        && !key.starts_with("gone-")
}

/// Bytes and inodes below a directory, hard links once, symlinks never followed.
fn disk_usage(path: &Path) -> io::Result<SnapshotUsage> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let dir = tree::open_dir_at(CWD, &name)?;
    let mut usage = SnapshotUsage::default();
    add_below(&dir, &mut usage, &mut HashSet::new(), MAX_DEPTH)?;
    Ok(usage)
}

fn add_below(
    dir: &OwnedFd,
    usage: &mut SnapshotUsage,
    linked: &mut HashSet<u64>,
    depth: usize,
) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // The container may be running: what is gone meanwhile does not count.
        let Some(stat) = tree::look(dir.as_fd(), name)? else {
            continue;
        };
        if stat.st_nlink > 1
            && tree::file_type(&stat) != FileType::Directory
            && !linked.insert(stat.st_ino)
        {
            continue;
        }
        usage.inodes += 1;
        usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if tree::file_type(&stat) == FileType::Directory
            && depth > 0
            && let Ok(below) = tree::open_dir_at(dir.as_fd(), name)
        {
            add_below(&below, usage, linked, depth - 1)?;
        }
    }
    Ok(())
}
