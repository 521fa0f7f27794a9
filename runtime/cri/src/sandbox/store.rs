//! All sandboxes, in memory and on disk.
//!
//! Invariant: a change is in the live file before it is in memory, and in memory before
//! its effect on the kernel begins.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_sys::crash_point;

use crate::id::SandboxId;
use crate::journal::Journal;
use crate::record::{self, RecordError};
use crate::sandbox::model::SandboxRecord;

/// Directory of the durable records below the data directory.
pub const JOURNAL_KIND: &str = "sandboxes";
/// The live record in the sandbox's directory.
const LIVE_NAME: &str = "sandbox.json";

/// No sandbox, or no single one, is meant.
#[derive(Debug, thiserror::Error)]
pub enum FindSandboxError {
    /// There is none of this identifier.
    #[error("sandbox `{0}` not found")]
    Unknown(String),
    /// The prefix fits several.
    #[error("sandbox id `{0}` is ambiguous")]
    Ambiguous(String),
}

/// The name is held by another sandbox.
#[derive(Debug)]
pub struct Taken(pub Arc<SandboxRecord>);

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<SandboxId, Arc<SandboxRecord>>,
    by_name: HashMap<String, SandboxId>,
}

/// All sandboxes.
pub struct SandboxStore {
    pods_dir: PathBuf,
    journal: Arc<Journal>,
    entries: Mutex<Entries>,
}

impl SandboxStore {
    /// An empty store whose sandboxes have their directories below `<state_dir>/pods`.
    pub fn new(state_dir: &Path, journal: Arc<Journal>) -> Self {
        let entries = Mutex::default();
        SandboxStore {
            pods_dir: state_dir.join("pods"),
            journal,
            entries,
        }
    }

    /// The directory of one sandbox: socket and state of its monitor, live record, files
    /// mounted into its containers.
    pub fn dir(&self, id: &SandboxId) -> PathBuf {
        self.pods_dir.join(id.as_str())
    }

    /// The directory of all of them.
    pub fn pods_dir(&self) -> &Path {
        &self.pods_dir
    }

    /// Takes the name of `record` and stores it; tells who has the name otherwise.
    pub fn reserve(&self, record: SandboxRecord) -> Result<Result<(), Taken>, RecordError> {
        let name = SandboxRecord::name(&record.config);
        let mut entries = self.lock();
        if let Some(holder) = entries.by_name.get(&name) {
            return Ok(Err(Taken(entries.by_id[holder].clone())));
        }
        record::make_dir(&self.dir(&record.id))?;
        self.write(&record)?;
        entries.by_name.insert(name, record.id.clone());
        entries.by_id.insert(record.id.clone(), Arc::new(record));
        Ok(Ok(()))
    }

    /// Takes over a record found on disk at start.
    pub fn adopt(&self, record: SandboxRecord) {
        let mut entries = self.lock();
        entries
            .by_name
            .insert(SandboxRecord::name(&record.config), record.id.clone());
        entries.by_id.insert(record.id.clone(), Arc::new(record));
    }

    /// Replaces the record of `id` by what `change` makes of it; None when it is gone.
    pub fn update(
        &self,
        id: &SandboxId,
        change: impl FnOnce(&mut SandboxRecord),
    ) -> Result<Option<Arc<SandboxRecord>>, RecordError> {
        let mut entries = self.lock();
        let Some(current) = entries.by_id.get(id) else {
            return Ok(None);
        };
        let mut next = SandboxRecord::clone(current);
        change(&mut next);
        self.write(&next)?;
        let next = Arc::new(next);
        entries.by_id.insert(id.clone(), next.clone());
        Ok(Some(next))
    }

    /// The sandbox `id`.
    pub fn get(&self, id: &SandboxId) -> Option<Arc<SandboxRecord>> {
        self.lock().by_id.get(id).cloned()
    }

    /// The sandbox whose identifier is or begins with `text`.
    pub fn find(&self, text: &str) -> Result<Arc<SandboxRecord>, FindSandboxError> {
        let entries = self.lock();
        let mut fitting = entries
            .by_id
            .range(SandboxId::from(text)..)
            .map(|(_, record)| record)
            .take_while(|record| record.id.as_str().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(record), _) if record.id.as_str() == text => Ok(record.clone()),
            (Some(record), None) if !text.is_empty() => Ok(record.clone()),
            (None, _) => Err(FindSandboxError::Unknown(text.to_owned())),
            (Some(_), _) if text.is_empty() => Err(FindSandboxError::Unknown(text.to_owned())),
            (Some(_), _) => Err(FindSandboxError::Ambiguous(text.to_owned())),
        }
    }

    /// All sandboxes, by identifier.
    pub fn list(&self) -> Vec<Arc<SandboxRecord>> {
        self.lock().by_id.values().cloned().collect()
    }

    /// Forgets the sandbox and removes its directory and records; it may be gone already.
    pub fn remove(&self, id: &SandboxId) -> Result<(), RecordError> {
        let mut entries = self.lock();
        record::remove_tree(&self.dir(id))?;
        crash_point!("remove sandbox: directory removed");
        self.journal.remove(JOURNAL_KIND, id.as_str());
        if let Some(record) = entries.by_id.remove(id) {
            entries.by_name.remove(&SandboxRecord::name(&record.config));
        }
        Ok(())
    }

    /// The live record of the sandbox directory `dir`.
    pub fn read_live(dir: &Path) -> Result<Option<SandboxRecord>, RecordError> {
        record::read(&dir.join(LIVE_NAME))
    }

    fn write(&self, record: &SandboxRecord) -> Result<(), RecordError> {
        let bytes = record::bytes(record);
        record::write(&self.dir(&record.id).join(LIVE_NAME), &bytes)?;
        self.journal.put(JOURNAL_KIND, record.id.as_str(), bytes);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::model::{Phase, testing};

    fn store() -> (tempfile::TempDir, SandboxStore) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("data"), &[JOURNAL_KIND]).unwrap();
        let store = SandboxStore::new(dir.path(), Arc::new(journal));
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
        let live = SandboxStore::read_live(&store.dir(&record.id))
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
        assert!(matches!(
            store.find("aa"),
            Err(FindSandboxError::Ambiguous(_))
        ));
        assert!(matches!(store.find("b"), Err(FindSandboxError::Unknown(_))));
        assert!(matches!(store.find(""), Err(FindSandboxError::Unknown(_))));
    }
}
