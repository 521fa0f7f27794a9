//! The writer thread: one group of transactions, one commit, one fdatasync.
//!
//! Invariant: nothing is answered or published before the commit that holds it returned.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot};

use super::{CURRENT, META, Memory, Record, read, write};
use crate::{
    store::{Committed, Entry, Op, Revision, Txn, TxnError},
    watch::{Change, ChangeKind},
};

/// Most transactions in one commit.
const GROUP: usize = 512;
/// History kept in memory before the older half is compacted on the store's own account.
const LOG_BYTES: usize = 32 << 20;
/// How often keys with a time to live are looked at when nothing else happens.
const EXPIRY_TICK: Duration = Duration::from_secs(5);

/// What a caller gets.
type Answer = Result<Committed, TxnError>;
/// A key and when it is due, as Unix seconds.
pub(super) type Expiry = (u64, Arc<str>);

/// A transaction and who waits for it.
pub(super) struct Request {
    pub txn: Txn,
    pub answer: oneshot::Sender<Answer>,
}

/// The state of the writer thread.
pub(super) struct Writer {
    database: Database,
    shared: Arc<RwLock<Memory>>,
    expiries: BinaryHeap<Reverse<Expiry>>,
    /// Set after a failed commit: the disk's state is then unknown to us, so no further
    /// write is taken.
    failed: Option<String>,
}

/// One group on its way to disk.
struct Group {
    revision: Revision,
    /// What this group did to keys so far; conditions of later members see it.
    overlay: HashMap<Arc<str>, Option<Entry>>,
    changes: Vec<(Change, u64)>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Writer {
    pub(super) fn new(
        database: Database,
        shared: Arc<RwLock<Memory>>,
        expiries: Vec<Expiry>,
    ) -> Self {
        Self {
            database,
            shared,
            expiries: expiries.into_iter().map(Reverse).collect(),
            failed: None,
        }
    }

    /// Serves until every sender is gone.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let Ok(timer) = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
        else {
            return;
        };
        let mut requests = Vec::with_capacity(GROUP);
        loop {
            // `recv_many` is cancel-safe: on a timeout nothing has been taken.
            let received = timer.block_on(async {
                tokio::time::timeout(EXPIRY_TICK, inbox.recv_many(&mut requests, GROUP)).await
            });
            match received {
                Ok(0) => return,
                Ok(_) | Err(_) => self.commit_group(&mut requests),
            }
        }
    }

    fn commit_group(&mut self, requests: &mut Vec<Request>) {
        if let Some(reason) = &self.failed {
            for request in requests.drain(..) {
                let reason = reason.clone();
                let _ = request.answer.send(Err(TxnError::Backend { reason }));
            }
            return;
        }
        let mut group = Group {
            revision: read(&self.shared).revision(),
            overlay: HashMap::new(),
            changes: Vec::new(),
            answers: Vec::with_capacity(requests.len()),
        };
        for request in requests.drain(..) {
            let result = self.stage(&mut group, &request.txn);
            group.answers.push((request.answer, result));
        }
        self.stage_expired(&mut group);
        if let Err(error) = self.persist(&group) {
            let reason = error.to_string();
            tracing::error!(%reason, "the store cannot commit and takes no further writes");
            for (_, result) in &mut group.answers {
                if result.is_ok() {
                    let reason = reason.clone();
                    *result = Err(TxnError::Backend { reason });
                }
            }
            self.failed = Some(reason);
            group.changes.clear();
        }
        self.publish(group);
    }

    fn look(&self, group: &Group, key: &str) -> Option<Entry> {
        match group.overlay.get(key) {
            Some(entry) => entry.clone(),
            None => read(&self.shared).newest(key),
        }
    }

    fn stage(&self, group: &mut Group, txn: &Txn) -> Result<Committed, TxnError> {
        for compare in &txn.compare {
            let current = self.look(group, &compare.key);
            if current.as_ref().map_or(0, |entry| entry.modified) != compare.modified {
                let key = compare.key.clone();
                return Err(TxnError::Conflict { key, current });
            }
        }
        let revision = group.revision + 1;
        let before = group.changes.len();
        for op in &txn.ops {
            self.stage_op(group, op, revision);
        }
        if group.changes.len() > before {
            group.revision = revision;
        }
        Ok(Committed {
            revision: group.revision,
        })
    }

    fn stage_op(&self, group: &mut Group, op: &Op, revision: Revision) {
        let old = self.look(group, op.key());
        let key: Arc<str> = old
            .as_ref()
            .map_or_else(|| Arc::from(op.key()), |entry| Arc::clone(&entry.key));
        let previous: Option<Bytes> = old.as_ref().map(|entry| entry.value.clone());
        let (kind, value, expires) = match (op, &old) {
            (Op::Put { value, ttl, .. }, _) => {
                let kind = match old {
                    Some(_) => ChangeKind::Updated,
                    None => ChangeKind::Created,
                };
                let expires = ttl.map_or(0, |ttl| unix_now() + ttl.as_secs());
                (kind, value.clone(), expires)
            }
            (Op::Delete { .. }, Some(entry)) => (ChangeKind::Deleted, entry.value.clone(), 0),
            (Op::Delete { .. }, None) => return,
        };
        let entry = Entry {
            key: Arc::clone(&key),
            value,
            created: old.map_or(revision, |entry| entry.created),
            modified: revision,
        };
        let now = (kind != ChangeKind::Deleted).then(|| entry.clone());
        group.overlay.insert(key, now);
        let change = Change {
            kind,
            entry,
            previous,
        };
        group.changes.push((change, expires));
    }

    fn stage_expired(&mut self, group: &mut Group) {
        let now = unix_now();
        while self.expiries.peek().is_some_and(|next| next.0.0 <= now) {
            let Some(Reverse((_, key))) = self.expiries.pop() else {
                return;
            };
            if group.overlay.contains_key(&key) || !self.is_expired(&key, now) {
                continue;
            }
            let revision = group.revision + 1;
            let op = Op::Delete {
                key: key.to_string(),
            };
            self.stage_op(group, &op, revision);
            group.revision = revision;
        }
    }

    /// Whether the record on disk still says that the key is past its time: a later write
    /// may have renewed or removed it.
    fn is_expired(&self, key: &str, now: u64) -> bool {
        use redb::ReadableDatabase as _;
        let record = self.database.begin_read().ok().and_then(|txn| {
            let table = txn.open_table(CURRENT).ok()?;
            let value = table.get(key).ok()??;
            Record::decode(value.value())
        });
        record.is_some_and(|record| record.expires != 0 && record.expires <= now)
    }

    fn persist(&self, group: &Group) -> Result<(), redb::Error> {
        if group.changes.is_empty() {
            return Ok(());
        }
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        {
            let mut table = txn.open_table(CURRENT)?;
            for (change, expires) in &group.changes {
                let key: &str = &change.entry.key;
                if change.kind == ChangeKind::Deleted {
                    table.remove(key)?;
                } else {
                    let record = Record {
                        created: change.entry.created,
                        modified: change.entry.modified,
                        expires: *expires,
                        value: change.entry.value.clone(),
                    };
                    table.insert(key, record.encode().as_slice())?;
                }
            }
            txn.open_table(META)?.insert("revision", group.revision)?;
        }
        txn.commit()?;
        Ok(())
    }

    fn publish(&mut self, group: Group) {
        if !group.changes.is_empty() {
            let mut memory = write(&self.shared);
            for (change, expires) in group.changes {
                if expires != 0 {
                    let key = Arc::clone(&change.entry.key);
                    self.expiries.push(Reverse((expires, key)));
                }
                memory.apply(change);
            }
            if memory.log_bytes() > LOG_BYTES {
                let upto = memory.middle_of_log();
                memory.compact(upto);
            }
        }
        for (answer, result) in group.answers {
            // A caller that went away does not want the answer.
            let _ = answer.send(result);
        }
    }
}
