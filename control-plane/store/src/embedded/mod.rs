//! The embedded backend for one machine: redb on disk, the whole key space in memory.
//!
//! ```text
//! callers ──requests──▶ writer thread: check conditions ▸ one redb commit for the group
//!                         (one fdatasync) ▸ publish to memory ▸ answer every caller
//! readers and watchers ──▶ memory, which holds only what is durable
//! ```
//! Disk keeps the newest value of each key. The history for paged lists and watches lives in
//! memory: after a restart older revisions answer as compacted and clients list again.

mod commit;
mod memory;
mod record;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread::JoinHandle,
};

use futures::{FutureExt, future::BoxFuture};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::{
    store::{Committed, Entry, Found, Page, Range, ReadError, Revision, Store, Txn, TxnError},
    watch::{Watch, WatchError, WatchItem},
};
use commit::{Expiry, Request, Writer};
use memory::Memory;
use record::Record;

/// The newest value of each key.
const CURRENT: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("current");
/// Numbers about the store: `revision`.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Transactions that may wait for the writer before callers wait too.
const QUEUE: usize = 4096;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made.
    #[error("cannot make the store's directory `{path}`")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The database refuses, for instance because another process has it open.
    #[error("cannot open the database `{path}`")]
    Database {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record does not decode.
    #[error("the record of key `{key}` is damaged")]
    Record {
        /// The key.
        key: String,
    },
    /// The writer thread could not be started.
    #[error("cannot start the writer thread")]
    Thread(#[source] std::io::Error),
}

/// The embedded store; see the module's head. Dropping it flushes and closes the database.
pub struct Embedded {
    shared: Arc<RwLock<Memory>>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

fn read(memory: &RwLock<Memory>) -> RwLockReadGuard<'_, Memory> {
    memory.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(memory: &RwLock<Memory>) -> RwLockWriteGuard<'_, Memory> {
    memory.write().unwrap_or_else(PoisonError::into_inner)
}

impl Embedded {
    /// Opens or makes the store in `dir` (file `store.redb`); one process at a time.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Directory {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join("store.redb");
        let wrap = |source: redb::Error| OpenError::Database {
            path: path.clone(),
            source: Box::new(source),
        };
        let database = Database::builder()
            .set_cache_size(16 << 20)
            .create(&path)
            .map_err(|error| wrap(error.into()))?;
        let (memory, expiries) = load(&database).map_err(|error| match error {
            LoadError::Database(error) => wrap(*error),
            LoadError::Record(key) => OpenError::Record { key },
        })?;
        let shared = Arc::new(RwLock::new(memory));
        let (requests, inbox) = mpsc::channel(QUEUE);
        let writer = Writer::new(database, Arc::clone(&shared), expiries);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(inbox))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            shared,
            requests: Some(requests),
            writer: Mutex::new(Some(thread)),
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.requests.take());
        let thread = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

enum LoadError {
    Database(Box<redb::Error>),
    Record(String),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// Reads the key space; also the keys that expire, with when.
fn load(database: &Database) -> Result<(Memory, Vec<Expiry>), LoadError> {
    let setup = database.begin_write()?;
    setup.open_table(CURRENT)?;
    setup.open_table(META)?;
    setup.commit()?;
    let txn = database.begin_read()?;
    let revision = txn
        .open_table(META)?
        .get("revision")?
        .map_or(1, |value| value.value());
    let mut memory = Memory::new(revision);
    let mut expiries = Vec::new();
    for row in txn.open_table(CURRENT)?.iter()? {
        let (key, value) = row?;
        let key: Arc<str> = Arc::from(key.value());
        let Some(record) = Record::decode(value.value()) else {
            return Err(LoadError::Record(key.to_string()));
        };
        if record.expires != 0 {
            expiries.push((record.expires, Arc::clone(&key)));
        }
        memory.load(Entry {
            key,
            value: record.value,
            created: record.created,
            modified: record.modified,
        });
    }
    Ok((memory, expiries))
}

impl Store for Embedded {
    fn revision(&self) -> BoxFuture<'_, Result<Revision, ReadError>> {
        std::future::ready(Ok(read(&self.shared).revision())).boxed()
    }

    fn get<'a>(
        &'a self,
        key: &'a str,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Found, ReadError>> {
        std::future::ready(read(&self.shared).get(key, at)).boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, ReadError>> {
        std::future::ready(read(&self.shared).range(&range)).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, TxnError>> {
        async move {
            let (answer, committed) = oneshot::channel();
            let requests = self.requests.as_ref().ok_or(TxnError::Closed)?;
            requests
                .send(Request { txn, answer })
                .await
                .map_err(|_| TxnError::Closed)?;
            committed.await.map_err(|_| TxnError::Closed)?
        }
        .boxed()
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        let mut memory = write(&self.shared);
        let watch = memory.since(&prefix, after).map(|backlog| {
            let (sender, live) = memory.fanout.add(&prefix);
            let sender = sender.downgrade();
            let shared = Arc::clone(&self.shared);
            let progress = Box::new(move || {
                // Under the lock, so that no change at or before this revision comes later.
                let memory = read(&shared);
                if let Some(sender) = sender.upgrade() {
                    let _ = sender.try_send(WatchItem::Progress(memory.revision()));
                }
            });
            Watch::new(backlog, live, progress)
        });
        std::future::ready(watch).boxed()
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, ()> {
        write(&self.shared).compact(upto);
        std::future::ready(()).boxed()
    }
}
