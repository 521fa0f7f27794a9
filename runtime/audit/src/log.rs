//! The log: one writer, entries written at once, synced and signed in groups.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::json;

use crate::entry::{self, EntryError, Event, Hash, Kind, Subject};
use crate::files::FileError;
use crate::head::End;
use crate::keys::{NodeKeys, PublicKey};
use crate::open::{self, OpenError};
use crate::seal;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size from which on a new file is begun, in bytes.
    pub max_file_bytes: u64,
    /// Most files; at least 2, or a new file would leave nothing of the log.
    pub max_files: usize,
}

/// Why an entry was not appended. Nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The entry cannot be written as a line.
    #[error("the entry cannot be kept")]
    Entry(#[source] EntryError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something failed before, and what is in the file is not known to be on the disk.
    #[error("the log must be opened again: {0}")]
    Failed(String),
}

/// An open log. Appending is for any thread; the last handle that is dropped signs the end.
pub struct Log {
    shared: Arc<Shared>,
    keys: Arc<NodeKeys>,
    sealer: Option<JoinHandle<()>>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) changed: Condvar,
}

pub(crate) struct State {
    pub(crate) dir: PathBuf,
    /// Held for its lock, and to sync names.
    pub(crate) folder: Arc<File>,
    pub(crate) limits: Limits,
    /// First entries of the files, oldest first; the last one is appended to.
    pub(crate) files: Vec<u64>,
    active: Option<(Arc<File>, u64)>,
    pub(crate) last: End,
    /// Files with entries that are not synced.
    pub(crate) unsynced: Vec<Arc<File>>,
    /// A file was made since the last sealing.
    pub(crate) named: bool,
    /// Since when there is something to seal.
    pub(crate) since: Option<Instant>,
    /// The newest entry that the head on the disk signs.
    pub(crate) sealed: u64,
    pub(crate) head: Option<String>,
    /// How many wait for the head.
    pub(crate) waiting: usize,
    pub(crate) failure: Option<String>,
    pub(crate) closed: bool,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Opens the log in the folder `dir`, made when missing, and appends the entry that says so.
    ///
    /// # Errors
    /// Another process has it open, or it cannot be written.
    pub fn open(dir: &Path, limits: Limits, keys: NodeKeys) -> Result<Log, OpenError> {
        let found = open::find(dir, keys.public())?;
        let state = State {
            dir: dir.to_owned(),
            folder: Arc::new(found.folder),
            limits,
            files: found.files,
            active: found.active.map(|(file, len)| (Arc::new(file), len)),
            last: found.last,
            unsynced: Vec::new(),
            named: false,
            since: None,
            sealed: 0,
            head: None,
            waiting: 0,
            failure: None,
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let keys = Arc::new(keys);
        let (theirs, signing) = (shared.clone(), keys.clone());
        let sealer = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || seal::run(&theirs, &signing))
            .map_err(crate::files::io("start the thread that signs", dir))?;
        let log = Log {
            shared,
            keys,
            sealer: Some(sealer),
        };
        log.append(&opened(log.public_key(), &found.notes))
            .map_err(|error| OpenError::Append(Box::new(error)))?;
        Ok(log)
    }

    /// Appends an entry and gives its number. When this returns the entry is in the file,
    /// which the end of this process cannot undo; some time later it is on the disk and
    /// signed, with all that came meanwhile.
    ///
    /// # Errors
    /// Nothing was appended. After [`AppendError::Failed`] the log must be opened again.
    pub fn append(&self, event: &Event) -> Result<u64, AppendError> {
        let mut state = self.shared.lock();
        let asleep = state.since.is_none();
        let seq = state.append(event)?;
        drop(state);
        // One that waits already seals this entry too.
        if asleep {
            self.shared.changed.notify_all();
        }
        Ok(seq)
    }

    /// Waits until everything appended so far is on the disk, and gives the signed head.
    ///
    /// # Errors
    /// It cannot be synced or signed.
    pub fn seal(&self) -> Result<String, AppendError> {
        let mut state = self.shared.lock();
        let goal = state.last.seq;
        state.waiting += 1;
        self.shared.changed.notify_all();
        while state.sealed < goal && state.failure.is_none() {
            let woken = self.shared.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        match (&state.failure, &state.head) {
            (None, Some(head)) => Ok(head.clone()),
            (failure, _) => Err(AppendError::Failed(failure.clone().unwrap_or_default())),
        }
    }

    /// The key that verifies the head.
    pub fn public_key(&self) -> &PublicKey {
        self.keys.public()
    }

    /// The node's keys.
    pub fn keys(&self) -> &NodeKeys {
        &self.keys
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(sealer) = self.sealer.take() {
            // One that panicked has already printed why.
            let _ = sealer.join();
        }
    }
}

fn opened(key: &PublicKey, notes: &[String]) -> Event {
    let mut record = json!({
        "event": "opened",
        "version": env!("CARGO_PKG_VERSION"),
        "key": key.fingerprint(),
    });
    if !notes.is_empty() {
        record["notes"] = json!(notes);
    }
    Event {
        kind: Kind::Log,
        subject: Subject::default(),
        record: serde_json::value::to_raw_value(&record).ok(),
    }
}

impl State {
    fn append(&mut self, event: &Event) -> Result<u64, AppendError> {
        if let Some(failure) = &self.failure {
            return Err(AppendError::Failed(failure.clone()));
        }
        let seq = self.last.seq + 1;
        let (line, hash) =
            entry::seal(event, seq, &entry::now(), self.last.hash).map_err(AppendError::Entry)?;
        let (file, len) = self.file_for(line.len() as u64)?;
        if let Err(source) = (&*file).write_all(&line) {
            // Half a line must not stay: the next entry would be joined to it.
            if let Err(error) = file.set_len(len) {
                self.failure = Some(format!("half a line cannot be cut off: {error}"));
            }
            let path = self.active_path();
            return Err(crate::files::io("write", &path)(source).into());
        }
        self.active = Some((file.clone(), len + line.len() as u64));
        self.last = End { seq, hash };
        if !self.unsynced.iter().any(|known| Arc::ptr_eq(known, &file)) {
            self.unsynced.push(file);
        }
        self.since.get_or_insert_with(Instant::now);
        Ok(seq)
    }

    /// The file that takes `more` bytes, with its length; a new one where the last is full.
    fn file_for(&mut self, more: u64) -> Result<(Arc<File>, u64), AppendError> {
        if let Some((file, len)) = &self.active {
            let links = file.metadata().map_or(0, |metadata| metadata.nlink());
            if links == 0 {
                let failure = format!("`{}` was removed", self.active_path().display());
                self.failure = Some(failure.clone());
                return Err(AppendError::Failed(failure));
            }
            if len + more <= self.limits.max_file_bytes {
                return Ok((file.clone(), *len));
            }
        }
        let first = self.last.seq + 1;
        let file = Arc::new(open::create(&self.dir, first)?);
        self.files.push(first);
        self.named = true;
        self.active = Some((file.clone(), 0));
        Ok((file, 0))
    }

    fn active_path(&self) -> PathBuf {
        let first = self.files.last().copied().unwrap_or_default();
        self.dir.join(crate::files::name(first))
    }

    /// What the first entry of a log begins with.
    pub(crate) fn beginning() -> End {
        End {
            seq: 1,
            hash: Hash::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
