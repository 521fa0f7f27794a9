//! The audit log of sandbox records: what was started, executed, changed and pulled on this
//! node, next to what the kernel says of it, in a chain that shows every later change.
//!
//! ```text
//! /var/log/berth/audit/                      0700, locked (flock) by the one writer
//!   00000000000000000001.jsonl               0600, one entry a line; named by its first entry
//!   00000000000000003127.jsonl               … the last one is appended to
//!   head.json                                the chain's ends, signed with the node's key
//! <data folder>/audit/
//!   node.key, node.pub                       Ed25519 (PKCS #8 and SPKI, PEM)
//!   environment.key                          key of the digests of environments
//! ```
//!
//! Invariant: what the head signs is on the disk before the head is; an entry is in its file
//! before [`Log::append`] returns. docs/audit.md has the format and how to verify it by hand.

mod entry;
mod environment;
mod files;
mod head;
mod keys;
mod log;
mod open;
mod seal;
mod verify;

pub use entry::{Entry, EntryError, Event, Hash, Kind, Subject, now, parse, since};
pub use environment::hide_environment;
pub use files::{FileError, HEAD_NAME, Line, Scan, entries, read_head, tells_of_start};
pub use head::{End, Head, HeadError};
pub use keys::{KeyError, NodeKeys, PUBLIC_KEY_NAME, PublicKey};
pub use log::{AppendError, Limits, Log};
pub use open::OpenError;
pub use verify::{Broken, Report, verify_export, verify_folder};
