//! Records as files: one JSON file each, replaced whole by rename.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a record cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file operation failed.
    #[error("cannot {step} `{path}`")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The content is no such record.
    #[error("`{path}` is not a record of this version")]
    Content {
        /// The file.
        path: PathBuf,
        /// Where it differs.
        #[source]
        source: serde_json::Error,
    },
}

/// Names the step and the file of an I/O error.
pub fn io(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::Io { step, path, source }
}

/// The bytes a record is stored as.
pub fn bytes<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record)
        .expect("records hold only strings, numbers, lists and maps by string")
}

/// Replaces the record at `path`. What was there stays readable until the new record is
/// whole. Not synced: the live records lie in memory, the durable ones are the journal's.
pub fn write(path: &Path, content: &[u8]) -> Result<(), RecordError> {
    let next = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .map_err(io("create", &next))?;
    file.write_all(content).map_err(io("write", &next))?;
    drop(file);
    std::fs::rename(&next, path).map_err(io("replace", path))
}

/// The record at `path`; None when there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path)(error)),
    };
    let parsed = serde_json::from_slice(&content);
    parsed.map(Some).map_err(|source| RecordError::Content {
        path: path.to_owned(),
        source,
    })
}

/// Removes the file at `path`; it may be gone already.
pub fn remove(path: &Path) -> Result<(), RecordError> {
    absent_is_fine(std::fs::remove_file(path)).map_err(io("remove", path))
}

/// Removes the directory at `path` with all it holds; it may be gone already.
pub fn remove_tree(path: &Path) -> Result<(), RecordError> {
    absent_is_fine(std::fs::remove_dir_all(path)).map_err(io("remove", path))
}

/// Makes the directory `path` and its parents, readable by root only.
pub fn make_dir(path: &Path) -> Result<(), RecordError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(io("make", path))
}

/// The entries of the directory `path`; none when it is not there.
pub fn list(path: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("list", path)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(io("list", path))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn absent_is_fine(outcome: std::io::Result<()>) -> std::io::Result<()> {
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The kernel's identifier of this boot (`/proc/sys/kernel/random/boot_id`).
pub fn boot_id() -> Result<String, RecordError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        write(&path, &bytes(&vec![1u8])).unwrap();
        write(&path, &bytes(&vec![2u8])).unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Some(vec![2]));
        assert_eq!(list(dir.path()).unwrap(), std::slice::from_ref(&path));
        remove(&path).unwrap();
        remove(&path).unwrap();
        remove_tree(&path).unwrap();
        write(&path, b"{").unwrap();
        assert!(matches!(
            read::<Vec<u8>>(&path),
            Err(RecordError::Content { .. })
        ));
    }
}
