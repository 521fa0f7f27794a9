//! All containers, in memory and on disk.
//!
//! Invariant: a change is in the live file before it is in memory, and in memory before
//! its effect on the kernel begins.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_sys::crash_point;
use tokio::sync::Notify;

use crate::container::model::{ContainerRecord, Exit, State};
use crate::id::{ContainerId, SandboxId};
use crate::journal::Journal;
use crate::record::{self, RecordError};

/// Directory of the durable records below the data directory.
pub const JOURNAL_KIND: &str = "containers";
/// The live record in the container's directory.
const LIVE_NAME: &str = "container.json";

/// No container, or no single one, is meant.
#[derive(Debug, thiserror::Error)]
pub enum FindContainerError {
    /// There is none of this identifier.
    #[error("container `{0}` not found")]
    Unknown(String),
    /// The prefix fits several.
    #[error("container id `{0}` is ambiguous")]
    Ambiguous(String),
}

/// The name is held by another container.
#[derive(Debug)]
pub struct Taken(pub Arc<ContainerRecord>);

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<ContainerId, Arc<ContainerRecord>>,
    by_name: HashMap<String, ContainerId>,
}

/// All containers.
pub struct ContainerStore {
    containers_dir: PathBuf,
    journal: Arc<Journal>,
    entries: Mutex<Entries>,
    ended: Notify,
}

impl ContainerStore {
    /// An empty store whose containers have their directories below `<state_dir>/containers`.
    pub fn new(state_dir: &Path, journal: Arc<Journal>) -> Self {
        ContainerStore {
            containers_dir: state_dir.join("containers"),
            journal,
            entries: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// The directory of one container, its OCI bundle.
    pub fn dir(&self, id: &ContainerId) -> PathBuf {
        self.containers_dir.join(id.as_str())
    }

    /// The directory of all of them.
    pub fn containers_dir(&self) -> &Path {
        &self.containers_dir
    }

    /// Takes the name of `record` and stores it; tells who has the name otherwise.
    pub fn reserve(&self, record: ContainerRecord) -> Result<Result<(), Taken>, RecordError> {
        let name = ContainerRecord::name(&record.sandbox, &record.config);
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
    pub fn adopt(&self, record: ContainerRecord) {
        let mut entries = self.lock();
        let name = ContainerRecord::name(&record.sandbox, &record.config);
        entries.by_name.insert(name, record.id.clone());
        entries.by_id.insert(record.id.clone(), Arc::new(record));
    }

    /// Replaces the record of `id` by what `change` makes of it; None when it is gone.
    pub fn update(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<Option<Arc<ContainerRecord>>, RecordError> {
        let mut entries = self.lock();
        let Some(current) = entries.by_id.get(id) else {
            return Ok(None);
        };
        let mut next = ContainerRecord::clone(current);
        change(&mut next);
        self.write(&next)?;
        let next = Arc::new(next);
        entries.by_id.insert(id.clone(), next.clone());
        drop(entries);
        self.ended.notify_waiters();
        Ok(Some(next))
    }

    /// Records the end of `id`; None when it is gone or its end is recorded already.
    pub fn end(
        &self,
        id: &ContainerId,
        exit: Exit,
    ) -> Result<Option<Arc<ContainerRecord>>, RecordError> {
        match self.get(id) {
            Some(record) if !matches!(record.state, State::Exited(_)) => {
                self.update(id, |record| record.state = State::Exited(exit))
            }
            _ => Ok(None),
        }
    }

    /// Waits until `id` has ended or is gone.
    pub async fn ended(&self, id: &ContainerId) {
        loop {
            let mut changed = std::pin::pin!(self.ended.notified());
            changed.as_mut().enable();
            match self.get(id) {
                Some(record) if !matches!(record.state, State::Exited(_)) => changed.await,
                _ => return,
            }
        }
    }

    /// The container `id`.
    pub fn get(&self, id: &ContainerId) -> Option<Arc<ContainerRecord>> {
        self.lock().by_id.get(id).cloned()
    }

    /// The container whose identifier is or begins with `text`.
    pub fn find(&self, text: &str) -> Result<Arc<ContainerRecord>, FindContainerError> {
        let entries = self.lock();
        let mut fitting = entries
            .by_id
            .range(ContainerId::from(text)..)
            .map(|(_, record)| record)
            .take_while(|record| record.id.as_str().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(record), _) if record.id.as_str() == text => Ok(record.clone()),
            (Some(record), None) if !text.is_empty() => Ok(record.clone()),
            (None, _) => Err(FindContainerError::Unknown(text.to_owned())),
            (Some(_), _) if text.is_empty() => Err(FindContainerError::Unknown(text.to_owned())),
            (Some(_), _) => Err(FindContainerError::Ambiguous(text.to_owned())),
        }
    }

    /// All containers, by identifier.
    pub fn list(&self) -> Vec<Arc<ContainerRecord>> {
        self.lock().by_id.values().cloned().collect()
    }

    /// The containers of one pod.
    pub fn of(&self, sandbox: &SandboxId) -> Vec<Arc<ContainerRecord>> {
        let mut all = self.list();
        all.retain(|record| record.sandbox == *sandbox);
        all
    }

    /// Forgets the container and removes its directory and records; it may be gone already.
    pub fn remove(&self, id: &ContainerId) -> Result<(), RecordError> {
        let mut entries = self.lock();
        record::remove_tree(&self.dir(id))?;
        crash_point!("remove container: directory removed");
        self.journal.remove(JOURNAL_KIND, id.as_str());
        if let Some(record) = entries.by_id.remove(id) {
            let name = ContainerRecord::name(&record.sandbox, &record.config);
            entries.by_name.remove(&name);
        }
        drop(entries);
        self.ended.notify_waiters();
        Ok(())
    }

    /// The live record of the container directory `dir`.
    pub fn read_live(dir: &Path) -> Result<Option<ContainerRecord>, RecordError> {
        record::read(&dir.join(LIVE_NAME))
    }

    fn write(&self, record: &ContainerRecord) -> Result<(), RecordError> {
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
    use crate::container::model::testing;

    #[tokio::test]
    async fn an_end_is_recorded_once_and_wakes_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("data"), &[JOURNAL_KIND]).unwrap();
        let store = ContainerStore::new(dir.path(), Arc::new(journal));
        let sandbox = SandboxId::random();
        let record = testing::record("c", &sandbox);
        let id = record.id.clone();
        store.reserve(record.clone()).unwrap().unwrap();
        assert!(
            store
                .reserve(testing::record("c", &sandbox))
                .unwrap()
                .is_err()
        );
        let (first, ()) = tokio::join!(
            async { store.end(&id, Exit::unseen(1, 2, "Unknown")).unwrap() },
            store.ended(&id)
        );
        assert!(first.is_some());
        assert!(
            store
                .end(&id, Exit::unseen(3, 4, "MonitorLost"))
                .unwrap()
                .is_none()
        );
        assert_eq!(store.of(&sandbox).len(), 1);
        store.remove(&id).unwrap();
        store.ended(&id).await;
        assert!(store.get(&id).is_none());
        store
            .reserve(testing::record("c", &sandbox))
            .unwrap()
            .unwrap();
    }
}
