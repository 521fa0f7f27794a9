//! Files whose opening shows (inotify(7)).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// Watches files from now on.
pub(crate) struct Watch {
    events: OwnedFd,
    files: Vec<(i32, PathBuf)>,
}

impl Watch {
    /// Watches these files for being opened by anybody.
    pub(crate) fn opens(files: &[PathBuf]) -> Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watched = files.iter().map(|file| {
            let number = inotify::add_watch(&events, file, WatchFlags::OPEN)?;
            Ok((number, file.clone()))
        });
        let files = watched.collect::<Result<Vec<_>>>()?;
        Ok(Self { events, files })
    }

    /// Which have been.
    pub(crate) fn opened(&self) -> Vec<&Path> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.events, &mut buffer);
        let mut found = Vec::new();
        while let Ok(event) = reader.next() {
            let of = |(number, _): &&(i32, PathBuf)| *number == event.wd();
            found.extend(self.files.iter().find(of).map(|(_, file)| file.as_path()));
        }
        found
    }
}
