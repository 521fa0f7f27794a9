//! Sealing: the thread that puts what was appended on the disk, signs the head, and gives up
//! the oldest files.
//!
//! The order is what a crash at any point needs: entries and names are on the disk before the
//! head that signs them, and the head that gives a file up is on the disk before the file goes.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::entry;
use crate::files::{self, FileError, HEAD_NAME, Lines, io};
use crate::head::{End, Head};
use crate::keys::NodeKeys;
use crate::log::{Shared, State};
use crate::open::remove_if_there;

/// How long an entry may wait for the disk and the signature. Each sealing is two commits of
/// the file system, for which others wait too; half a second of them go together.
const SEAL_WITHIN: Duration = Duration::from_millis(500);

/// What is sealed at once.
struct Batch {
    dir: PathBuf,
    folder: Arc<File>,
    unsynced: Vec<Arc<File>>,
    /// A file was made: its name must be on the disk as well.
    named: bool,
    /// First entries of the files to give up, and of the oldest that stays.
    dropped: Vec<u64>,
    oldest: u64,
    last: End,
}

/// Seals until the log is closed or something fails.
pub fn run(shared: &Shared, keys: &NodeKeys) {
    while let Some(batch) = next(shared) {
        let outcome = batch.seal(keys);
        let mut state = shared.lock();
        match outcome {
            Ok(head) => {
                state.sealed = batch.last.seq;
                state.head = Some(head);
                state.files.retain(|file| !batch.dropped.contains(file));
            }
            Err(error) => {
                let reason = error.source.to_string();
                state.failure = Some(format!("{error}: {reason}"));
            }
        }
        let failed = state.failure.is_some();
        drop(state);
        shared.changed.notify_all();
        if failed {
            return;
        }
    }
}

/// Waits for the next batch; None when the log is closed and all is sealed.
fn next(shared: &Shared) -> Option<Batch> {
    let mut state = shared.lock();
    loop {
        let left = state
            .since
            .map(|since| SEAL_WITHIN.saturating_sub(since.elapsed()));
        let at_once = state.closed || state.waiting > 0;
        state = match left {
            None if state.closed => return None,
            None => shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(left) if at_once || left.is_zero() => return Some(Batch::of(&mut state)),
            Some(left) => wait_for(shared, state, left),
        };
    }
}

/// Waits, but not longer for every entry that comes meanwhile.
fn wait_for<'a>(
    shared: &'a Shared,
    state: std::sync::MutexGuard<'a, State>,
    left: Duration,
) -> std::sync::MutexGuard<'a, State> {
    let until = Instant::now() + left;
    let idle = |state: &mut State| !state.closed && state.waiting == 0 && Instant::now() < until;
    let woken = shared.changed.wait_timeout_while(state, left, idle);
    woken.unwrap_or_else(PoisonError::into_inner).0
}

impl Batch {
    fn of(state: &mut State) -> Batch {
        state.since = None;
        let surplus = state.files.len().saturating_sub(state.limits.max_files);
        Batch {
            dir: state.dir.clone(),
            folder: state.folder.clone(),
            unsynced: std::mem::take(&mut state.unsynced),
            named: std::mem::take(&mut state.named),
            dropped: state.files[..surplus].to_vec(),
            oldest: state.files.get(surplus).copied().unwrap_or_default(),
            last: state.last,
        }
    }

    fn seal(&self, keys: &NodeKeys) -> Result<String, FileError> {
        for file in &self.unsynced {
            rustix::fs::fdatasync(file).map_err(io("sync", &self.dir))?;
        }
        if self.named {
            rustix::fs::fsync(&self.folder).map_err(io("sync", &self.dir))?;
        }
        let fingerprint = keys.public().fingerprint();
        let head = Head::new(self.first()?, self.last, entry::now(), fingerprint);
        let line = head.sign(keys);
        write_head(&self.dir, &line)?;
        for dropped in &self.dropped {
            remove_if_there(&self.dir.join(files::name(*dropped)))?;
        }
        Ok(line)
    }

    /// The oldest entry that stays. One that was changed keeps the number it should have.
    fn first(&self) -> Result<End, FileError> {
        if self.oldest <= 1 {
            return Ok(State::beginning());
        }
        let path = self.dir.join(files::name(self.oldest));
        let line = Lines::open(&path)?.next().transpose()?;
        let entry = line.and_then(|line| entry::parse(&line.bytes).ok());
        Ok(End {
            seq: self.oldest,
            hash: entry.map_or(State::beginning().hash, |entry| entry.prev),
        })
    }
}

/// Replaces the head, whole and on the disk.
fn write_head(dir: &Path, line: &str) -> Result<(), FileError> {
    let path = dir.join(HEAD_NAME);
    let next = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .map_err(io("create", &next))?;
    file.write_all(line.as_bytes())
        .and_then(|()| file.sync_data())
        .map_err(io("write", &next))?;
    std::fs::rename(&next, &path).map_err(io("replace", &path))
}
