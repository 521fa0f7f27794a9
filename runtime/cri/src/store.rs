//! All records of one kind, in memory and on disk.
//!
//! Invariant: a change is in the live file before it is in memory, and in memory before
//! its effect on the kernel begins.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_sys::crash_point;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::journal::Journal;
use crate::record::{self, RecordError};

/// What a store keeps.
pub trait Stored: Clone + Serialize + DeserializeOwned {
    /// Its identifier.
    type Id: Ord + Clone + fmt::Display + for<'a> From<&'a str> + AsRef<str>;
    /// For people, and with `.json` the live record in the record's directory.
    const NOUN: &'static str;
    /// The directory of their directories, below the state directory.
    const FOLDER: &'static str;
    /// The directory of the durable records, below the data directory.
    const JOURNAL_KIND: &'static str;

    /// Its identifier.
    fn id(&self) -> &Self::Id;
    /// The name under which it is reserved.
    fn reserved_name(&self) -> String;
}

/// No record, or no single one, is meant.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is none of this identifier.
    #[error("{noun} `{id}` not found")]
    Unknown {
        /// Of what kind.
        noun: &'static str,
        /// What was given.
        id: String,
    },
    /// The prefix fits several.
    #[error("{noun} id `{id}` is ambiguous")]
    Ambiguous {
        /// Of what kind.
        noun: &'static str,
        /// What was given.
        id: String,
    },
}

/// The name is held by another one.
#[derive(Debug)]
pub struct Taken<R>(pub Arc<R>);

struct Entries<R: Stored> {
    by_id: BTreeMap<R::Id, Arc<R>>,
    by_name: HashMap<String, R::Id>,
}

/// All records of one kind.
pub struct Store<R: Stored> {
    folder: PathBuf,
    journal: Arc<Journal>,
    entries: Mutex<Entries<R>>,
    changed: Notify,
}

impl<R: Stored> Store<R> {
    /// An empty store whose records have their directories below `state_dir`.
    pub fn new(state_dir: &Path, journal: Arc<Journal>) -> Self {
        let entries = Entries {
            by_id: BTreeMap::new(),
            by_name: HashMap::new(),
        };
        Store {
            folder: state_dir.join(R::FOLDER),
            journal,
            entries: Mutex::new(entries),
            changed: Notify::new(),
        }
    }

    /// The directory of one of them.
    pub fn dir(&self, id: &R::Id) -> PathBuf {
        self.folder.join(id.as_ref())
    }

    /// The directory of all of them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the name of `record` and stores it; tells who has the name otherwise.
    pub fn reserve(&self, record: R) -> Result<Result<(), Taken<R>>, RecordError> {
        let name = record.reserved_name();
        let mut entries = self.lock();
        if let Some(holder) = entries.by_name.get(&name) {
            return Ok(Err(Taken(entries.by_id[holder].clone())));
        }
        record::make_dir(&self.dir(record.id()))?;
        self.write(&record)?;
        entries.insert(record);
        Ok(Ok(()))
    }

    /// Takes over a record found on disk at start.
    pub fn adopt(&self, record: R) {
        self.lock().insert(record);
    }

    /// Replaces the record of `id` by what `change` makes of it; None when it is gone.
    pub fn update(
        &self,
        id: &R::Id,
        change: impl FnOnce(&mut R),
    ) -> Result<Option<Arc<R>>, RecordError> {
        let mut entries = self.lock();
        let Some(current) = entries.by_id.get(id) else {
            return Ok(None);
        };
        let mut next = R::clone(current);
        change(&mut next);
        self.write(&next)?;
        let next = Arc::new(next);
        entries.by_id.insert(id.clone(), next.clone());
        drop(entries);
        self.changed.notify_waiters();
        Ok(Some(next))
    }

    /// Waits until `done` is true of the record of `id`, or that is gone.
    pub async fn until(&self, id: &R::Id, done: impl Fn(&R) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before the look: a change after it must wake.
            changed.as_mut().enable();
            match self.get(id) {
                Some(record) if !done(&record) => changed.await,
                _ => return,
            }
        }
    }

    /// The record of `id`.
    pub fn get(&self, id: &R::Id) -> Option<Arc<R>> {
        self.lock().by_id.get(id).cloned()
    }

    /// The record whose identifier is or begins with `text`.
    pub fn find(&self, text: &str) -> Result<Arc<R>, FindError> {
        let entries = self.lock();
        let mut fitting = entries
            .by_id
            .range(R::Id::from(text)..)
            .map(|(_, record)| record)
            .take_while(|record| record.id().as_ref().starts_with(text));
        let (noun, id) = (R::NOUN, text.to_owned());
        match (fitting.next(), fitting.next()) {
            (Some(record), _) if record.id().as_ref() == text => Ok(record.clone()),
            (Some(record), None) if !text.is_empty() => Ok(record.clone()),
            (Some(_), Some(_)) if !text.is_empty() => Err(FindError::Ambiguous { noun, id }),
            _ => Err(FindError::Unknown { noun, id }),
        }
    }

    /// All of them, by identifier.
    pub fn list(&self) -> Vec<Arc<R>> {
        self.lock().by_id.values().cloned().collect()
    }

    /// Forgets the record and removes its directory and files; it may be gone already.
    pub fn remove(&self, id: &R::Id) -> Result<(), RecordError> {
        let mut entries = self.lock();
        record::remove_tree(&self.dir(id))?;
        crash_point!(&format!("remove {}: directory removed", R::NOUN));
        self.journal.remove(R::JOURNAL_KIND, id.as_ref());
        if let Some(record) = entries.by_id.remove(id) {
            entries.by_name.remove(&record.reserved_name());
        }
        drop(entries);
        self.changed.notify_waiters();
        Ok(())
    }

    /// The live record in the directory `dir`.
    pub fn read_live(dir: &Path) -> Result<Option<R>, RecordError> {
        record::read(&live(dir, R::NOUN))
    }

    fn write(&self, record: &R) -> Result<(), RecordError> {
        let bytes = record::bytes(record);
        record::write(&live(&self.dir(record.id()), R::NOUN), &bytes)?;
        self.journal
            .put(R::JOURNAL_KIND, record.id().as_ref(), bytes);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Entries<R>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Stored> Entries<R> {
    fn insert(&mut self, record: R) {
        let id = record.id().clone();
        self.by_name.insert(record.reserved_name(), id.clone());
        self.by_id.insert(id, Arc::new(record));
    }
}

fn live(dir: &Path, noun: &str) -> PathBuf {
    dir.join(format!("{noun}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SandboxId;
    use crate::sandbox::model::{Phase, SandboxRecord, testing};

    fn store() -> (tempfile::TempDir, Store<SandboxRecord>) {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [SandboxRecord::JOURNAL_KIND];
        let journal = Journal::open(&dir.path().join("data"), &kinds).unwrap();
        let store = Store::new(dir.path(), Arc::new(journal));
        (dir, store)
    }

    #[test]
    fn a_name_is_taken_until_its_sandbox_is_removed() {
        let (_dir, store) = store();
        let first = testing::record("web");
        store.reserve(first.clone()).unwrap().unwrap();
        let taken = store.reserve(testing::record("web")).unwrap().unwrap_err();
        assert_eq!(taken.0.id, first.id);
        store.remove(&first.id).unwrap();
        store.remove(&first.id).unwrap();
        store.reserve(testing::record("web")).unwrap().unwrap();
    }

    #[test]
    fn a_change_is_on_disk() {
        let (_dir, store) = store();
        let record = testing::record("web");
        store.reserve(record.clone()).unwrap().unwrap();
        store
            .update(&record.id, |record| record.phase = Phase::Stopped)
            .unwrap()
            .unwrap();
        let live = Store::<SandboxRecord>::read_live(&store.dir(&record.id))
            .unwrap()
            .unwrap();
        assert_eq!(live.phase, Phase::Stopped);
        assert!(
            store
                .update(&SandboxId::random(), |_| ())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_prefix_finds_what_it_alone_fits() {
        let (_dir, store) = store();
        for (name, id) in [("a", "aa11"), ("b", "aa22"), ("c", "aa2")] {
            let record = SandboxRecord {
                id: SandboxId::from(id),
                ..testing::record(name)
            };
            store.reserve(record).unwrap().unwrap();
        }
        assert_eq!(store.find("aa1").unwrap().id.as_str(), "aa11");
        assert_eq!(store.find("aa2").unwrap().id.as_str(), "aa2");
        assert!(matches!(store.find("aa"), Err(FindError::Ambiguous { .. })));
        assert!(matches!(store.find("b"), Err(FindError::Unknown { .. })));
        assert!(matches!(store.find(""), Err(FindError::Unknown { .. })));
    }
}
