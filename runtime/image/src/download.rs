//! A blob on its way: parts are written as they arrive, one reader follows in order.
//!
//! The file has no name, so a crash leaves nothing. The reader hashes what it reads; whoever reads
//! to the end and calls [`Follower::finish`] knows whether the bytes are the blob's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::digest::{Digest, Hasher};

/// Bytes by which the format of a compressed layer is told; the first read waits for them.
const MAGIC: u64 = 4;

/// The writing side; clones are handles on the same download.
#[derive(Clone)]
pub(crate) struct Download(Arc<Shared>);

struct Shared {
    file: File,
    size: u64,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// Invariant: `ready` bytes from the start are in the file; `islands` (start to end) lie beyond,
/// apart from each other and from `ready`.
#[derive(Default)]
struct Progress {
    ready: u64,
    islands: BTreeMap<u64, u64>,
    failed: bool,
    given_up: bool,
}

/// The reading side: blocks until bytes are there.
pub(crate) struct Follower {
    shared: Arc<Shared>,
    position: u64,
    hasher: Hasher,
}

/// Marks the download as failed unless disarmed: a reader must not wait for a writer that was
/// dropped.
pub(crate) struct FailOnDrop(Option<Download>);

impl Progress {
    /// Notes that `start..end` is in the file.
    fn arrived(&mut self, start: u64, end: u64) {
        if start > self.ready {
            let known = self.islands.entry(start).or_insert(end);
            *known = end.max(*known);
            return;
        }
        self.ready = self.ready.max(end);
        while let Some(island) = self.islands.first_entry() {
            if *island.key() > self.ready {
                break;
            }
            self.ready = self.ready.max(island.remove());
        }
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        // The data is a few numbers that no panic can leave half written.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Download {
    /// A download of `size` bytes into `file`, and the reader of it.
    pub fn new(file: File, size: u64, digest: &Digest) -> (Self, Follower) {
        let progress = Mutex::new(Progress::default());
        let shared = Arc::new(Shared {
            file,
            size,
            progress,
            changed: Condvar::new(),
        });
        let follower = Follower {
            shared: Arc::clone(&shared),
            position: 0,
            hasher: digest.hasher(),
        };
        (Self(shared), follower)
    }

    /// Writes `bytes` at `offset`; an error if the reader gave up.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.file.write_all_at(bytes, offset)?;
        let mut progress = self.0.progress();
        if progress.given_up {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        progress.arrived(offset, offset + bytes.len() as u64);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Whether the reader gave up.
    pub fn given_up(&self) -> bool {
        self.0.progress().given_up
    }

    pub fn fail_on_drop(&self) -> FailOnDrop {
        FailOnDrop(Some(self.clone()))
    }
}

impl FailOnDrop {
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        if let Some(download) = &self.0 {
            download.0.progress().failed = true;
            download.0.changed.notify_all();
        }
    }
}

impl Follower {
    /// Reads what is left and answers whether the whole was `digest`.
    pub fn finish(mut self, digest: &Digest) -> io::Result<bool> {
        io::copy(&mut self, &mut io::sink())?;
        let hasher = std::mem::replace(&mut self.hasher, digest.hasher());
        Ok(hasher.finish() == *digest)
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.shared.size || buffer.is_empty() {
            return Ok(0);
        }
        let wanted = if self.position == 0 {
            MAGIC.min(self.shared.size)
        } else {
            self.position + 1
        };
        let mut progress = self.shared.progress();
        while progress.ready < wanted {
            if progress.failed {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the download failed",
                ));
            }
            progress = self
                .shared
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let ready = progress.ready - self.position;
        drop(progress);
        let length = usize::try_from(ready)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self
            .shared
            .file
            .read_at(&mut buffer[..length], self.position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.hasher.update(&buffer[..read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.progress().given_up = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_arrive_in_any_order() {
        let data: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let digest = Digest::of(&data);
        let file = tempfile::tempfile().unwrap();
        let (download, mut follower) = Download::new(file, data.len() as u64, &digest);
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            follower.read_to_end(&mut read).unwrap();
            (read, follower.finish(&digest).unwrap())
        });
        let parts: Vec<(usize, &[u8])> = data
            .chunks(1_000)
            .enumerate()
            .map(|(at, part)| (at * 1_000, part))
            .collect();
        for at in [3, 1, 2, 0, 39, 38].into_iter().chain(4..38) {
            download.write(parts[at].0 as u64, parts[at].1).unwrap();
        }
        assert_eq!(reader.join().unwrap(), (data, true));
    }

    #[test]
    fn neither_side_waits_for_the_dead() {
        let digest = Digest::of(b"");
        let (download, mut follower) = Download::new(tempfile::tempfile().unwrap(), 10, &digest);
        drop(download.fail_on_drop());
        assert!(follower.read(&mut [0; 8]).is_err());
        drop(follower);
        assert!(download.write(0, b"x").is_err());
    }
}
