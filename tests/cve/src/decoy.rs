//! A folder of the host that an attack would touch.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// Its one file.
const SECRET: &str = "secret";

/// A watched folder with one file. Every change shows, also one that was taken back.
pub(crate) struct Decoy {
    path: PathBuf,
    before: BTreeMap<String, Vec<u8>>,
    events: OwnedFd,
}

impl Decoy {
    /// Fills the folder and watches it from now on.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        fs::write(path.join(SECRET), "as it was")?;
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVE;
        inotify::add_watch(&events, &path, changes)?;
        let before = content(&path)?;
        Ok(Self {
            path,
            before,
            events,
        })
    }

    /// Where it is on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What happened to it.
    pub(crate) fn changes(&self) -> Result<Vec<String>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.events, &mut buffer);
        let mut found = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy());
            let name = name.unwrap_or_default();
            found.push(format!("host: {:?} of `{name}`", event.events()));
        }
        if content(&self.path)? != self.before {
            found.push(format!("host: `{}` has changed", self.path.display()));
        }
        Ok(found)
    }
}

fn content(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let bytes = if entry.file_type()?.is_file() {
            fs::read(entry.path())?
        } else {
            format!("{:?}", entry.file_type()?).into_bytes()
        };
        all.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_taken_back_shows() {
        let folder = tempfile::tempdir().unwrap();
        let decoy = Decoy::new(folder.path().to_owned()).unwrap();
        assert!(decoy.changes().unwrap().is_empty());
        fs::create_dir(folder.path().join("x")).unwrap();
        fs::remove_dir(folder.path().join("x")).unwrap();
        assert_eq!(decoy.changes().unwrap().len(), 2);
    }
}
