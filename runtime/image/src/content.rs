//! The content store: manifests, indexes and configurations by digest, verified on every read.
//!
//! Layer blobs are not kept: once unpacked, they are only in the way of disk space.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Documents on disk.
#[derive(Debug)]
pub(crate) struct Content {
    blobs: PathBuf,
    ingest: PathBuf,
}

/// Makes a directory of the store, for root alone.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Content {
    pub fn open(root: &Path) -> io::Result<Self> {
        let store = Self {
            blobs: root.join("blobs"),
            ingest: root.join("ingest"),
        };
        for algorithm in ["sha256", "sha512"] {
            private_dir(&store.blobs.join(algorithm))?;
        }
        private_dir(&store.ingest)?;
        // What a crash left half written.
        for entry in std::fs::read_dir(&store.ingest)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(store)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.algorithm()).join(digest.hex())
    }

    /// A document; `None` when it is absent or not what its digest says.
    pub fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the store's own file, named by a checked digest"
        )]
        match std::fs::read(self.path(digest)) {
            Ok(bytes) => Ok(digest.verifies(&bytes).then_some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a document whose digest the caller has verified: whole or not at all.
    pub fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.ingest)?;
        file.write_all(bytes)?;
        file.as_file().sync_data()?;
        file.persist(self.path(digest))
            .map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes a document. Idempotent.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match std::fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All documents.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            for entry in std::fs::read_dir(self.blobs.join(algorithm))? {
                let name = entry?.file_name();
                let digest = name
                    .to_str()
                    .and_then(|hex| Digest::parse(&format!("{algorithm}:{hex}")).ok());
                found.extend(digest);
            }
        }
        Ok(found)
    }

    /// A file without a name for a download.
    pub fn nameless_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.ingest)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the test damages the store by path"
)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_verified_on_reading() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let digest = Digest::of(b"{}");
        assert_eq!(content.read(&digest).unwrap(), None);
        content.write(&digest, b"{}").unwrap();
        assert_eq!(content.read(&digest).unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(content.list().unwrap(), std::slice::from_ref(&digest));
        std::fs::write(content.path(&digest), b"{ }").unwrap();
        assert_eq!(content.read(&digest).unwrap(), None);
        content.remove(&digest).unwrap();
        content.remove(&digest).unwrap();
        std::fs::write(dir.path().join("ingest/half"), b"x").unwrap();
        Content::open(dir.path()).unwrap();
        assert!(
            std::fs::read_dir(dir.path().join("ingest"))
                .unwrap()
                .next()
                .is_none()
        );
    }
}
