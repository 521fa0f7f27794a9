//! The API store: a flat, revisioned key space with compare-and-swap transactions and watches.
//!
//! Every committed transaction gets the next revision of one counter; it is the
//! `resourceVersion` that API clients see. Nothing above the [`Store`] trait knows which
//! backend serves it.

pub mod embedded;
mod store;
mod watch;

pub use embedded::Embedded;
pub use store::{
    Committed, Compare, Entry, Found, Op, Page, Range, ReadError, Revision, Store, Txn, TxnError,
};
pub use watch::{Change, ChangeKind, Watch, WatchError, WatchItem};
