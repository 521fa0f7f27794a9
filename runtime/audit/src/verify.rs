//! Verifying: every hash, every link of the chain, the signature, and who may read the files.

use std::fmt;
use std::io::{BufRead, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::entry::{self, Entry, Hash, LONGEST_LINE};
use crate::files::{self, FileError, HEAD_NAME, io};
use crate::head::{End, Head};
use crate::keys::PublicKey;

/// A log or export that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries were verified.
    pub entries: u64,
    /// The oldest of them; None when there are none.
    pub first: Option<u64>,
    /// The head.
    pub head: Head,
    /// The newest entry; it may be newer than the head, which is signed up to half a second later.
    pub last: u64,
    /// What is no fault and may still be of interest.
    pub notes: Vec<String>,
}

/// Where a log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The first entry that is wrong, by the number it should have; None for a file as a whole.
    pub seq: Option<u64>,
    /// File and line.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seq) = self.seq {
            write!(f, "entry {seq} ")?;
        }
        write!(f, "({}): {}", self.place, self.reason)
    }
}

/// Verifies the log in the folder `dir`, which may be written meanwhile.
///
/// # Errors
/// The files cannot be read. That the log is broken is the inner result.
pub fn verify_folder(dir: &Path, key: &PublicKey) -> Result<Result<Report, Broken>, FileError> {
    if let Err(broken) = check_modes(dir)? {
        return Ok(Err(broken));
    }
    // Before the entries: what is appended meanwhile comes behind it.
    let head = match head_of(dir, key)? {
        Ok(head) => head,
        Err(broken) => return Ok(Err(broken)),
    };
    let mut chain = Chain::new(head);
    let mut notes = Vec::new();
    for first in files::list(dir)? {
        let path = dir.join(files::name(first));
        let name = files::name(first);
        for line in files::Lines::open(&path)? {
            let line = line?;
            let place = format!("{name} line {}", line.number);
            if !line.complete {
                notes.push(format!(
                    "{place} is half an entry: the next start cuts it off"
                ));
                continue;
            }
            if line.number == 1
                && let Err(broken) = chain.begins_with(first, &place)
            {
                return Ok(Err(broken));
            }
            if let Err(broken) = chain.accept(&line.bytes, place) {
                return Ok(Err(broken));
            }
        }
    }
    Ok(chain.finish(notes))
}

/// Verifies what `berth audit export` printed: the head in the first line, then entries.
///
/// # Errors
/// It cannot be read. That it is broken is the inner result.
pub fn verify_export(
    mut reader: impl BufRead,
    key: &PublicKey,
) -> std::io::Result<Result<Report, Broken>> {
    let mut line = String::new();
    reader.by_ref().take(4096).read_line(&mut line)?;
    let head = match Head::verify(&line, key) {
        Ok(head) => head,
        Err(error) => {
            return Ok(Err(Broken {
                seq: None,
                place: "line 1".to_owned(),
                reason: error.to_string(),
            }));
        }
    };
    let mut chain = Chain::new(head);
    chain.partial = true;
    for number in 2u64.. {
        let mut line = Vec::new();
        let mut bounded = reader.by_ref().take(LONGEST_LINE as u64);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Err(broken) = chain.accept(line, format!("line {number}")) {
            return Ok(Err(broken));
        }
    }
    Ok(chain.finish(Vec::new()))
}

/// Folder 0700, files 0600, all of one owner.
fn check_modes(dir: &Path) -> Result<Result<(), Broken>, FileError> {
    let owner = std::fs::metadata(dir).map_err(io("look at", dir))?.uid();
    let mut names: Vec<String> = files::list(dir)?.into_iter().map(files::name).collect();
    names.push(HEAD_NAME.to_owned());
    names.insert(0, ".".to_owned());
    for name in names {
        let path = dir.join(&name);
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // Given up while we look, or a head that is told of below.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io("look at", &path)(error)),
        };
        let expected = if name == "." { 0o700 } else { 0o600 };
        let (mode, found) = (metadata.mode() & 0o7777, metadata.uid());
        let reason = if metadata.file_type().is_symlink() {
            "is a symbolic link".to_owned()
        } else if mode != expected {
            format!("its mode is {mode:04o}, not {expected:04o}")
        } else if found != owner {
            format!("its owner is {found}, not {owner}")
        } else {
            continue;
        };
        let place = if name == "." {
            dir.display().to_string()
        } else {
            name
        };
        return Ok(Err(Broken {
            seq: None,
            place,
            reason,
        }));
    }
    Ok(Ok(()))
}

fn head_of(dir: &Path, key: &PublicKey) -> Result<Result<Head, Broken>, FileError> {
    let line = files::read_head(dir)?;
    let head = match &line {
        Some(line) => Head::verify(line, key),
        None => Err(crate::head::HeadError::Absent),
    };
    Ok(head.map_err(|error| Broken {
        seq: None,
        place: HEAD_NAME.to_owned(),
        reason: error.to_string(),
    }))
}

/// The chain as far as it was read.
struct Chain {
    head: Head,
    /// It may begin later than the head says.
    partial: bool,
    entries: u64,
    first: Option<u64>,
    last: Option<End>,
}

impl Chain {
    fn new(head: Head) -> Chain {
        Chain {
            head,
            partial: false,
            entries: 0,
            first: None,
            last: None,
        }
    }

    fn accept(&mut self, line: &[u8], place: String) -> Result<(), Broken> {
        let expected = self.last.map(|last| last.seq + 1);
        let broken = |reason: String| Broken {
            seq: expected.or((!self.partial).then_some(self.head.first.seq)),
            place,
            reason,
        };
        let entry = match entry::parse(line) {
            Ok(entry) => entry,
            Err(error) => return Err(broken(error.to_string())),
        };
        if let Some(reason) = self.misplaced(&entry) {
            return Err(broken(reason));
        }
        self.entries += 1;
        self.first.get_or_insert(entry.seq);
        self.last = Some(End {
            seq: entry.seq,
            hash: entry.hash,
        });
        Ok(())
    }

    /// Why the entry is not the next one.
    fn misplaced(&self, entry: &Entry) -> Option<String> {
        let Head { first, last, .. } = &self.head;
        match self.last {
            Some(before) if entry.seq != before.seq + 1 => {
                return Some(format!("its number is {}", entry.seq));
            }
            Some(before) if entry.prev != before.hash => {
                return Some("it does not follow from the entry before".to_owned());
            }
            None if entry.seq > first.seq && !self.partial => {
                return Some(format!("the log begins with entry {}", entry.seq));
            }
            _ => {}
        }
        if entry.seq == first.seq && entry.prev != first.hash {
            return Some("it is not the beginning that the head signs".to_owned());
        }
        if entry.seq == last.seq && entry.hash != last.hash {
            return Some("it is not the entry that the head signs".to_owned());
        }
        if self.partial && entry.seq > last.seq {
            return Some("it comes after the head".to_owned());
        }
        if entry.seq == 1 && entry.prev != Hash::ZERO {
            return Some("it has a predecessor".to_owned());
        }
        None
    }

    /// The first line of a file must be the entry that the file is named by.
    fn begins_with(&self, first: u64, place: &str) -> Result<(), Broken> {
        match self.last {
            Some(last) if last.seq + 1 != first => Err(Broken {
                seq: Some(last.seq + 1),
                place: place.to_owned(),
                reason: format!("the file before it ends with entry {}", last.seq),
            }),
            _ => Ok(()),
        }
    }

    fn finish(self, notes: Vec<String>) -> Result<Report, Broken> {
        let last = self.last.map_or(0, |last| last.seq);
        let empty_part = self.partial && self.entries == 0;
        if last < self.head.last.seq && !empty_part {
            return Err(Broken {
                seq: Some(last + 1),
                place: "the end".to_owned(),
                reason: format!(
                    "missing: the head signs entries up to {}",
                    self.head.last.seq
                ),
            });
        }
        Ok(Report {
            entries: self.entries,
            first: self.first,
            last,
            head: self.head,
            notes,
        })
    }
}
