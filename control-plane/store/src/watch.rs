//! Watch streams and their fan-out: which watcher sees which key.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

use crate::store::{Entry, Revision};

/// Changes a watcher may lag behind before it is dropped; the client then watches again from
/// the last revision it saw.
const BACKLOG: usize = 4096;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The key did not exist before.
    Created,
    /// The key has a new value.
    Updated,
    /// The key is gone.
    Deleted,
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The key with its new value; for a deletion the last value. `modified` is the revision
    /// of this change in every case.
    pub entry: Entry,
    /// The value before this change.
    pub previous: Option<Bytes>,
}

/// One item of a watch stream.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// A change.
    Change(Arc<Change>),
    /// Every change up to this revision has been delivered.
    Progress(Revision),
}

/// Why a watch cannot start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The history after the revision asked for is gone.
    #[error("history after revision {asked} is gone, the oldest kept is {oldest}")]
    Compacted {
        /// What was asked.
        asked: Revision,
        /// The oldest revision that can be watched from.
        oldest: Revision,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// A stream of changes. It ends when the watcher lagged too far behind or the store closed.
pub struct Watch {
    backlog: std::collections::VecDeque<Arc<Change>>,
    live: mpsc::Receiver<WatchItem>,
    progress: Box<dyn Fn() + Send + Sync>,
}

impl Watch {
    /// A watch which first yields `backlog`, then what arrives on `live`. `progress` makes
    /// the backend send a [`WatchItem::Progress`].
    #[must_use]
    pub fn new(
        backlog: std::collections::VecDeque<Arc<Change>>,
        live: mpsc::Receiver<WatchItem>,
        progress: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            backlog,
            live,
            progress,
        }
    }

    /// Asks for a [`WatchItem::Progress`] with the newest revision, ordered after all changes
    /// before it.
    pub fn request_progress(&self) {
        (self.progress)();
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        if let Some(change) = self.backlog.pop_front() {
            return Poll::Ready(Some(WatchItem::Change(change)));
        }
        self.live.poll_recv(cx)
    }
}

/// The watchers of a store, by the prefix they follow.
#[derive(Default)]
pub(crate) struct Fanout {
    by_prefix: HashMap<String, Vec<mpsc::Sender<WatchItem>>>,
}

impl Fanout {
    /// Registers a watcher for `prefix`.
    pub(crate) fn add(
        &mut self,
        prefix: &str,
    ) -> (mpsc::Sender<WatchItem>, mpsc::Receiver<WatchItem>) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let list = self.by_prefix.entry(prefix.to_owned()).or_default();
        list.retain(|watcher| !watcher.is_closed());
        list.push(sender.clone());
        (sender, receiver)
    }

    /// Hands a change to every watcher of its key; drops those which are gone or lag.
    pub(crate) fn publish(&mut self, change: &Arc<Change>) {
        let key = Arc::clone(&change.entry.key);
        for end in prefix_ends(&key) {
            let Some(list) = self.by_prefix.get_mut(&key[..end]) else {
                continue;
            };
            list.retain(|watcher| {
                watcher
                    .try_send(WatchItem::Change(Arc::clone(change)))
                    .is_ok()
            });
            if list.is_empty() {
                self.by_prefix.remove(&key[..end]);
            }
        }
    }
}

/// The ends of all prefixes of `key` that a watcher may follow: after each `/`, and the whole.
fn prefix_ends(key: &str) -> impl Iterator<Item = usize> + '_ {
    let slashes = key
        .bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'/')
        .map(|(at, _)| at + 1);
    let whole = (!key.ends_with('/')).then_some(key.len());
    slashes.chain(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_slashes_and_at_the_whole_key() {
        let ends: Vec<&str> = prefix_ends("/a/bc/d")
            .map(|end| &"/a/bc/d"[..end])
            .collect();
        assert_eq!(ends, ["/", "/a/", "/a/bc/", "/a/bc/d"]);
    }
}
