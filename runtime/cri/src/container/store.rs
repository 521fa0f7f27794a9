//! What the store of containers can do beyond any other.

use std::sync::Arc;

use crate::container::model::{ContainerRecord, Exit, State};
use crate::id::{ContainerId, SandboxId};
use crate::record::RecordError;
use crate::store::{Store, Stored};

impl Stored for ContainerRecord {
    type Id = ContainerId;
    const NOUN: &'static str = "container";
    const FOLDER: &'static str = "containers";
    const JOURNAL_KIND: &'static str = "containers";

    fn id(&self) -> &ContainerId {
        &self.id
    }

    fn reserved_name(&self) -> String {
        ContainerRecord::name(&self.sandbox, &self.config)
    }
}

/// All containers. The directory of one is its OCI bundle.
pub type ContainerStore = Store<ContainerRecord>;

impl ContainerStore {
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
        self.until(id, |record| matches!(record.state, State::Exited(_)))
            .await;
    }

    /// The containers of one pod.
    pub fn of(&self, sandbox: &SandboxId) -> Vec<Arc<ContainerRecord>> {
        let mut all = self.list();
        all.retain(|record| record.sandbox == *sandbox);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::model::testing;
    use crate::journal::Journal;

    #[tokio::test]
    async fn an_end_is_recorded_once_and_wakes_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let journal =
            Journal::open(&dir.path().join("data"), &[ContainerRecord::JOURNAL_KIND]).unwrap();
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
