//! The store's trait and the values which cross it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::watch::{Watch, WatchError};

/// A point in the store's history; 0 means "before the first write".
pub type Revision = u64;

/// One key with the value it had at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The full key.
    pub key: Arc<str>,
    /// The stored bytes, opaque to the store.
    pub value: Bytes,
    /// Revision of the write that made the key.
    pub created: Revision,
    /// Revision of the write that gave the key this value.
    pub modified: Revision,
}

/// The answer of [`Store::get`].
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry, when the key existed at the revision read.
    pub entry: Option<Entry>,
    /// The revision that was read.
    pub revision: Revision,
}

/// What [`Store::range`] reads: all keys that start with `prefix`, in byte order.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Keys must start with this; it ends in `/` or is a whole key.
    pub prefix: String,
    /// Only keys after this one (the last key of the page before).
    pub after: Option<String>,
    /// Read this revision; the newest one when absent.
    pub at: Option<Revision>,
    /// At most this many entries; 0 means no limit.
    pub limit: usize,
}

/// One page of a range.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries in key order.
    pub entries: Vec<Entry>,
    /// The revision that was read; ask for it again to read the next page consistently.
    pub revision: Revision,
    /// How many matching entries follow this page.
    pub remaining: u64,
}

/// A condition of a transaction: the key's present revision of modification.
#[derive(Clone, Debug)]
pub struct Compare {
    /// The key looked at.
    pub key: String,
    /// Its expected revision of modification; 0 demands that the key does not exist.
    pub modified: Revision,
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Sets a key. With `ttl` the key is deleted that long after this write.
    Put {
        /// The key set.
        key: String,
        /// Its new value.
        value: Bytes,
        /// Time to live, counted from this write; whole seconds.
        ttl: Option<Duration>,
    },
    /// Removes a key; no effect when it does not exist.
    Delete {
        /// The key removed.
        key: String,
    },
}

impl Op {
    /// The key that the write touches.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A transaction: when every condition holds, every write happens, at one revision.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// All must hold.
    pub compare: Vec<Compare>,
    /// Applied in order, atomically.
    pub ops: Vec<Op>,
}

/// A transaction that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision of its writes.
    pub revision: Revision,
}

/// Why a read could not be served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision asked for has been compacted.
    #[error("revision {asked} has been compacted, the oldest is {oldest}")]
    Compacted {
        /// What was asked.
        asked: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The revision asked for lies in the future.
    #[error("revision {asked} is newer than the newest, {newest}")]
    Future {
        /// What was asked.
        asked: Revision,
        /// The newest revision.
        newest: Revision,
    },
}

/// Why a transaction did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TxnError {
    /// A condition did not hold; `current` is what the key holds instead.
    #[error("key `{key}` was changed by another writer")]
    Conflict {
        /// The key whose condition failed.
        key: String,
        /// What it holds now.
        current: Option<Entry>,
    },
    /// The backend could not make the write durable. The outcome of this transaction is
    /// "did not happen"; the store takes no further writes.
    #[error("cannot write to the store: {reason}")]
    Backend {
        /// The backend's own words.
        reason: String,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// A revisioned key space. All methods may be called from any task.
pub trait Store: Send + Sync + 'static {
    /// The newest durable revision.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, ReadError>>;

    /// Reads one key, at `at` or at the newest revision.
    fn get<'a>(
        &'a self,
        key: &'a str,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Found, ReadError>>;

    /// Reads a page of keys.
    fn range(&self, range: Range) -> BoxFuture<'_, Result<Page, ReadError>>;

    /// Commits a transaction; returns once it is on disk.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, TxnError>>;

    /// Follows all changes of keys under `prefix` (ends in `/`, or is a whole key) that are
    /// newer than `after`.
    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>>;

    /// Forgets the history up to and including `upto`: older revisions can no longer be read
    /// or watched from.
    fn compact(&self, upto: Revision) -> BoxFuture<'_, ()>;
}
