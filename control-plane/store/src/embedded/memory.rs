//! The key space in memory: every version since the last compaction, and the log of changes
//! that watches start from. Holds only what is durable.
//!
//! Invariant: versions of a key are sorted by revision; the log is sorted by revision and
//! holds every change after `compacted`.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    store::{Entry, Found, Page, Range, ReadError, Revision},
    watch::{Change, ChangeKind, Fanout, WatchError},
};

/// A value of a key from `modified` on; `value: None` is a deletion.
struct Version {
    created: Revision,
    modified: Revision,
    value: Option<Bytes>,
}

/// See the module's head.
pub(super) struct Memory {
    revision: Revision,
    compacted: Revision,
    keys: BTreeMap<Arc<str>, Vec<Version>>,
    log: VecDeque<Arc<Change>>,
    log_bytes: usize,
    pub(super) fanout: Fanout,
}

impl Memory {
    /// An empty key space at `revision`; earlier history is treated as compacted.
    pub(super) fn new(revision: Revision) -> Self {
        Self {
            revision,
            compacted: revision,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            fanout: Fanout::default(),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Bytes of values that the log keeps alive.
    pub(super) fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// The revision at the middle of the log.
    pub(super) fn middle_of_log(&self) -> Revision {
        self.log
            .get(self.log.len() / 2)
            .map_or(self.compacted, |change| change.entry.modified)
    }

    /// Puts a key read from disk at start.
    pub(super) fn load(&mut self, entry: Entry) {
        self.keys.insert(
            entry.key,
            vec![Version {
                created: entry.created,
                modified: entry.modified,
                value: Some(entry.value),
            }],
        );
    }

    /// The newest value of a key.
    pub(super) fn newest(&self, key: &str) -> Option<Entry> {
        let (key, versions) = self.keys.get_key_value(key)?;
        entry_at(key, versions, self.revision)
    }

    fn readable(&self, at: Option<Revision>) -> Result<Revision, ReadError> {
        let asked = at.unwrap_or(self.revision);
        if asked > self.revision {
            return Err(ReadError::Future {
                asked,
                newest: self.revision,
            });
        }
        if asked < self.compacted {
            return Err(ReadError::Compacted {
                asked,
                oldest: self.compacted,
            });
        }
        Ok(asked)
    }

    pub(super) fn get(&self, key: &str, at: Option<Revision>) -> Result<Found, ReadError> {
        let revision = self.readable(at)?;
        let entry = self
            .keys
            .get_key_value(key)
            .and_then(|(key, versions)| entry_at(key, versions, revision));
        Ok(Found { entry, revision })
    }

    pub(super) fn range(&self, range: &Range) -> Result<Page, ReadError> {
        let revision = self.readable(range.at)?;
        let start: Bound<&str> = match &range.after {
            Some(after) if after.as_str() >= range.prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(&range.prefix),
        };
        let mut entries = Vec::new();
        let mut remaining = 0;
        let matching = self
            .keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&range.prefix));
        for (key, versions) in matching {
            if range.limit != 0 && entries.len() >= range.limit {
                remaining += u64::from(lives_at(versions, revision));
            } else if let Some(entry) = entry_at(key, versions, revision) {
                entries.push(entry);
            }
        }
        Ok(Page {
            entries,
            revision,
            remaining,
        })
    }

    /// Makes a durable change visible and tells its watchers.
    pub(super) fn apply(&mut self, change: Change) {
        let Entry {
            key,
            value,
            created,
            modified,
        } = change.entry.clone();
        self.revision = self.revision.max(modified);
        let deleted = change.kind == ChangeKind::Deleted;
        self.keys.entry(key).or_default().push(Version {
            created,
            modified,
            value: (!deleted).then_some(value),
        });
        let change = Arc::new(change);
        self.log_bytes += change.entry.value.len();
        self.log.push_back(Arc::clone(&change));
        self.fanout.publish(&change);
    }

    /// The changes under `prefix` after `after`, oldest first.
    pub(super) fn since(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<VecDeque<Arc<Change>>, WatchError> {
        if after < self.compacted {
            return Err(WatchError::Compacted {
                asked: after,
                oldest: self.compacted,
            });
        }
        let first = self
            .log
            .partition_point(|change| change.entry.modified <= after);
        Ok(self
            .log
            .range(first..)
            .filter(|change| covers(prefix, &change.entry.key))
            .cloned()
            .collect())
    }

    /// Forgets versions which no readable revision needs.
    pub(super) fn compact(&mut self, upto: Revision) {
        let upto = upto.min(self.revision);
        if upto <= self.compacted {
            return;
        }
        self.compacted = upto;
        let mut touched = Vec::new();
        while let Some(change) = self.log.front() {
            if change.entry.modified > upto {
                break;
            }
            self.log_bytes -= change.entry.value.len();
            touched.push(Arc::clone(&change.entry.key));
            self.log.pop_front();
        }
        for key in touched {
            self.compact_key(&key);
        }
    }

    fn compact_key(&mut self, key: &str) {
        let upto = self.compacted;
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let keep_from = versions
            .partition_point(|version| version.modified <= upto)
            .saturating_sub(1);
        versions.drain(..keep_from);
        let gone = versions.len() == 1 && versions[0].value.is_none();
        if gone {
            self.keys.remove(key);
        }
    }
}

/// Whether a watcher or range of `prefix` covers `key`.
fn covers(prefix: &str, key: &str) -> bool {
    if prefix.ends_with('/') {
        key.starts_with(prefix)
    } else {
        key == prefix
    }
}

fn version_at(versions: &[Version], revision: Revision) -> Option<&Version> {
    let end = versions.partition_point(|version| version.modified <= revision);
    versions[..end].last()
}

fn lives_at(versions: &[Version], revision: Revision) -> bool {
    version_at(versions, revision).is_some_and(|version| version.value.is_some())
}

fn entry_at(key: &Arc<str>, versions: &[Version], revision: Revision) -> Option<Entry> {
    let version = version_at(versions, revision)?;
    Some(Entry {
        key: Arc::clone(key),
        value: version.value.clone()?,
        created: version.created,
        modified: version.modified,
    })
}
