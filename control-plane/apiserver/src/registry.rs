//! Objects over the store: keys, reads, and writes that retry on conflict.

use std::{sync::Arc, time::Duration};

use berth_api::{
    gvk::{self, Resource},
    status::{self, Status},
};
use berth_store::{
    Compare, Entry, Op, Page, Range, ReadError, Revision, Store, Txn, TxnError, Watch, WatchError,
};
use serde_json::Value;

use crate::object;

/// How long events live (stock `--event-ttl`).
const EVENT_TTL: Duration = Duration::from_secs(3600);
/// Tries of a read-modify-write before the conflict is reported.
const TRIES: usize = 16;

/// The objects in the store.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
}

/// Names one object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRef<'a> {
    /// Its resource.
    pub resource: &'static Resource,
    /// Its namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// What a read-modify-write makes of the object it read.
pub enum Next {
    /// Stores this object.
    Put(Value),
    /// Removes it; further writes happen in the same transaction.
    Delete(Vec<Op>),
    /// Leaves it.
    Keep,
}

/// How a read-modify-write ended.
pub enum Outcome {
    /// The object as it is now.
    Stored(Value),
    /// It is gone; this was its last state.
    Deleted(Value),
}

/// The prefix under which a resource's objects lie. Both shapes of events share one.
pub fn prefix(resource: &Resource, namespace: &str) -> String {
    let group = match resource.group {
        "" | "events.k8s.io" => "core",
        group => group,
    };
    let plural = resource.plural;
    if namespace.is_empty() {
        format!("/{group}/{plural}/")
    } else {
        format!("/{group}/{plural}/{namespace}/")
    }
}

/// The key of an object.
pub fn key(object: &ObjectRef) -> String {
    format!(
        "{}{}",
        prefix(object.resource, object.namespace),
        object.name
    )
}

/// The resource that is known to be served; used for the server's own objects.
pub fn core(plural: &str) -> &'static Resource {
    resource("", plural)
}

/// A served resource of `group` `v1`.
pub fn resource(group: &str, plural: &str) -> &'static Resource {
    gvk::find(group, "v1", plural).expect("the server's own kinds are in the resource table")
}

/// A read error as a client sees it.
pub fn read_status(error: ReadError) -> Status {
    match error {
        ReadError::Compacted { asked, oldest } => status::too_old(asked, oldest),
        ReadError::Future { asked, newest } => {
            let mut status = status::timeout(format!(
                "Too large resource version: {asked}, current: {newest}"
            ));
            status.details = Some(serde_json::json!({
                "causes": [{
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version",
                }],
                "retryAfterSeconds": 1,
            }));
            status
        }
    }
}

impl Registry {
    /// The objects in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The newest revision.
    pub async fn revision(&self) -> Result<Revision, Status> {
        self.store.revision().await.map_err(read_status)
    }

    /// The entry of an object, when it exists.
    pub async fn find(&self, object: &ObjectRef<'_>) -> Result<Option<Entry>, Status> {
        let found = self.store.get(&key(object), None).await;
        Ok(found.map_err(read_status)?.entry)
    }

    /// The entry of an object, or the 404 for it.
    pub async fn entry(&self, object: &ObjectRef<'_>) -> Result<Entry, Status> {
        self.find(object)
            .await?
            .ok_or_else(|| status::not_found(object.resource, object.name))
    }

    /// The object, or the 404 for it.
    pub async fn get(&self, object: &ObjectRef<'_>) -> Result<Value, Status> {
        let entry = self.entry(object).await?;
        Ok(object::of_entry(object.resource, &entry))
    }

    /// A page of entries.
    pub async fn range(&self, range: Range) -> Result<Page, ReadError> {
        self.store.range(range).await
    }

    /// Follows changes under a prefix or of one key.
    pub async fn watch(&self, prefix: String, after: Revision) -> Result<Watch, WatchError> {
        self.store.watch(prefix, after).await
    }

    /// Forgets history up to `upto`.
    pub async fn compact(&self, upto: Revision) {
        self.store.compact(upto).await;
    }

    /// Commits a transaction of the caller's making.
    pub async fn txn(&self, txn: Txn) -> Result<Revision, TxnError> {
        Ok(self.store.txn(txn).await?.revision)
    }

    /// The write of an object, with its resource's time to live.
    pub fn put(&self, target: &ObjectRef, object: &Value) -> Op {
        Op::Put {
            key: key(target),
            value: object::encode(target.resource, object),
            ttl: (target.resource.plural == "events").then_some(EVENT_TTL),
        }
    }

    /// Reads, lets `change` decide, writes; again when another writer came between. `change`
    /// sees the present object each time.
    pub async fn update(
        &self,
        target: &ObjectRef<'_>,
        dry_run: bool,
        mut change: impl FnMut(&Value) -> Result<Next, Status> + Send,
    ) -> Result<Outcome, Status> {
        for _ in 0..TRIES {
            let entry = self.entry(target).await?;
            let old = object::of_entry(target.resource, &entry);
            let next = change(&old)?;
            match self.write(target, &entry, old, next, dry_run).await {
                Err(TxnError::Conflict { .. }) => {}
                Err(error) => return Err(status::internal(error)),
                Ok(outcome) => return Ok(outcome),
            }
        }
        Err(status::stale(target.resource, target.name))
    }

    async fn write(
        &self,
        target: &ObjectRef<'_>,
        entry: &Entry,
        old: Value,
        next: Next,
        dry_run: bool,
    ) -> Result<Outcome, TxnError> {
        let compare = vec![Compare {
            key: entry.key.to_string(),
            modified: entry.modified,
        }];
        match next {
            Next::Keep => Ok(Outcome::Stored(old)),
            Next::Put(mut object) => {
                let unchanged = object::encode(target.resource, &object) == entry.value;
                let mut revision = entry.modified;
                if !unchanged && !dry_run {
                    let ops = vec![self.put(target, &object)];
                    revision = self.txn(Txn { compare, ops }).await?;
                }
                set_revision(&mut object, revision);
                Ok(Outcome::Stored(object))
            }
            Next::Delete(mut ops) => {
                let mut last = old;
                if !dry_run {
                    let key = entry.key.to_string();
                    ops.insert(0, Op::Delete { key });
                    let revision = self.txn(Txn { compare, ops }).await?;
                    set_revision(&mut last, revision);
                }
                Ok(Outcome::Deleted(last))
            }
        }
    }
}

/// Sets the resourceVersion of an object to be answered.
pub fn set_revision(object: &mut Value, revision: Revision) {
    berth_api::meta::set(object, "resourceVersion", revision.to_string());
}
