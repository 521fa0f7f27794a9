//! What is found when a log is opened, and what is made of it.
//!
//! | found | made of it |
//! |---|---|
//! | nothing | the folder, and entry 1 |
//! | a last line without its end | cut off; what it was is noted |
//! | an empty file | removed |
//! | files that the head has given up | removed |
//! | a head that is not ours, or none | noted; the chain is signed anew |
//! | an entry that was changed | left as evidence; a new file goes on behind it, with a note |
//! | entries missing that the head has signed | noted; the chain goes on behind them |
//!
//! Nothing but half a line is ever taken away, so opening again after a crash at any point
//! comes to the same.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use crate::entry::{self, Hash};
use crate::files::{self, FileError, HEAD_NAME, Lines, io};
use crate::head::{End, Head, HeadError};
use crate::keys::PublicKey;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process writes it.
    #[error("another process writes the audit log in `{0}`")]
    Locked(PathBuf),
    /// The keys cannot be used.
    #[error("cannot use the keys of the audit log")]
    Keys(#[from] crate::keys::KeyError),
    /// The first entry cannot be written.
    #[error("cannot write to the audit log")]
    Append(#[source] Box<crate::log::AppendError>),
}

/// A log as it was found, ready for the next entry.
pub struct Found {
    /// The folder, locked.
    pub folder: File,
    /// First entries of the files that are kept, oldest first.
    pub files: Vec<u64>,
    /// The file to append to with its length; None: a new one.
    pub active: Option<(File, u64)>,
    /// The newest entry; 0 and zeros when there is none.
    pub last: End,
    /// What was out of order, for people.
    pub notes: Vec<String>,
}

/// Makes the folder `dir` of a log if need be, and finds out where its chain goes on.
pub fn find(dir: &Path, key: &PublicKey) -> Result<Found, OpenError> {
    let folder = lock(dir)?;
    remove_if_there(&dir.join(HEAD_NAME).with_extension("new"))?;
    let mut notes = Vec::new();
    let head = trusted_head(dir, key, &mut notes)?;
    let mut files = files::list(dir)?;
    if let Some(head) = &head {
        give_up(dir, &mut files, head.first.seq)?;
    }
    let tail = loop {
        let Some(first) = files.last().copied() else {
            break None;
        };
        let path = dir.join(files::name(first));
        let tail = read_tail(&path, first, &mut notes)?;
        if tail.bytes > 0 {
            break Some((path, tail));
        }
        remove_if_there(&path)?;
        files.pop();
    };
    let none = End {
        seq: 0,
        hash: Hash::ZERO,
    };
    let mut last = tail.as_ref().map_or(none, |(_, tail)| tail.last);
    let mut whole = tail.as_ref().is_some_and(|(_, tail)| tail.whole);
    if let Some(head) = head {
        if head.last.seq > last.seq {
            let missing = format!("entries up to {} are missing", head.last.seq);
            notes.push(format!("{missing} after {}", last.seq));
            (last, whole) = (head.last, false);
        } else if head.last.seq == last.seq && head.last.hash != last.hash {
            notes.push(format!("entry {} is not the one signed", last.seq));
            whole = false;
        }
    }
    let active = match tail {
        Some((path, tail)) if whole => Some((append_to(&path)?, tail.bytes)),
        _ => None,
    };
    Ok(Found {
        folder,
        files,
        active,
        last,
        notes,
    })
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(io("make", dir))?;
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
    let folder = File::options().read(true).custom_flags(flags).open(dir);
    let folder = folder.map_err(io("open", dir))?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked(dir.to_owned())),
        Err(errno) => return Err(io("lock", dir)(errno).into()),
    }
    let metadata = folder.metadata().map_err(io("look at", dir))?;
    if metadata.mode() & 0o7777 != 0o700 {
        let private = std::fs::Permissions::from_mode(0o700);
        folder
            .set_permissions(private)
            .map_err(io("make private", dir))?;
    }
    Ok(folder)
}

/// The head, if this key signed it; why not is noted.
fn trusted_head(
    dir: &Path,
    key: &PublicKey,
    notes: &mut Vec<String>,
) -> Result<Option<Head>, OpenError> {
    let Some(line) = files::read_head(dir)? else {
        return Ok(None);
    };
    match Head::verify(&line, key) {
        Ok(head) => Ok(Some(head)),
        Err(error @ HeadError::OtherKey { .. }) => {
            notes.push(error.to_string());
            Ok(None)
        }
        Err(error) => {
            notes.push(error.to_string());
            Ok(None)
        }
    }
}

/// Removes the files of which the head says that they are not kept any more.
fn give_up(dir: &Path, files: &mut Vec<u64>, first: u64) -> Result<(), FileError> {
    while let [oldest, next, ..] = files[..] {
        if next > first {
            break;
        }
        remove_if_there(&dir.join(files::name(oldest)))?;
        files.remove(0);
    }
    Ok(())
}

struct Tail {
    /// The last entry that can be read.
    last: End,
    /// Length of the complete lines.
    bytes: u64,
    /// Every entry of the file follows from the one before.
    whole: bool,
}

/// Reads one file to its end and cuts off half a line.
fn read_tail(path: &Path, first: u64, notes: &mut Vec<String>) -> Result<Tail, FileError> {
    let mut tail = Tail {
        last: End {
            seq: first.saturating_sub(1),
            hash: Hash::ZERO,
        },
        bytes: 0,
        whole: true,
    };
    for line in Lines::open(path)? {
        let line = line?;
        if !line.complete {
            notes.push(format!(
                "the last line was torn: {} bytes of entry {} are cut off",
                line.bytes.len(),
                tail.last.seq + 1
            ));
            truncate(path, tail.bytes)?;
            break;
        }
        let seq = tail.last.seq + 1;
        match entry::parse(&line.bytes) {
            Ok(entry) if entry.seq == seq && (line.number == 1 || entry.prev == tail.last.hash) => {
                tail.last.hash = entry.hash;
            }
            _ if tail.whole => {
                tail.whole = false;
                notes.push(format!("entry {seq} was changed"));
            }
            _ => {}
        }
        tail.last.seq = seq;
        tail.bytes += line.bytes.len() as u64 + 1;
    }
    Ok(tail)
}

fn truncate(path: &Path, bytes: u64) -> Result<(), FileError> {
    let file = append_to(path)?;
    file.set_len(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io("cut the torn line off", path))
}

fn append_to(path: &Path) -> Result<File, FileError> {
    let file = File::options()
        .append(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(io("open", path))?;
    let private = std::fs::Permissions::from_mode(0o600);
    file.set_permissions(private)
        .map_err(io("make private", path))?;
    Ok(file)
}

/// Makes the file whose first entry will be `first`.
pub fn create(dir: &Path, first: u64) -> Result<File, FileError> {
    let path = dir.join(files::name(first));
    File::options()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(io("create", &path))
}

/// Removes a file that may be gone already.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}
