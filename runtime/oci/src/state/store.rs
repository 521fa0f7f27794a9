//! The state root: one directory a container, each under its own lock.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_sys::root::RootDir;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::record::{Record, Status, start_time};
use crate::cgroup::Cgroup;

/// The largest state or config file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Why the state of a container cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An id that cannot be the name of a directory.
    #[error("{}", crate::state::bad_id(.0))]
    BadId(String),
    /// `create` of an id that is in use.
    #[error("container with given ID already exists: `{0}`")]
    Exists(String),
    /// No such container.
    #[error("container does not exist: `{0}`")]
    NotFound(String),
    /// A container whose directory lacks a file.
    #[error("the state of `{id}` is damaged: it has no `{file}`")]
    Missing {
        /// Which container.
        id: String,
        /// The file.
        file: String,
    },
    /// Another call of the runtime has the container.
    #[error("container `{0}` is held by another call that does not end")]
    Held(String),
    /// The directory or a file in it failed.
    #[error("cannot {action} the state of `{id}`")]
    Access {
        /// What was tried.
        action: &'static str,
        /// Which container.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `state.json` is not what berth wrote.
    #[error("the state of `{id}` is damaged")]
    Damaged {
        /// Which container.
        id: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

/// A container's record, in its directory.
const RECORD: &str = "state.json";
/// The spec as it was at `create`, next to it.
const CONFIG: &str = "config.json";

/// The directory with all containers' state, such as `/run/berth-oci`.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Between two attempts to take a lock that another call has.
const PAUSE: Duration = Duration::from_millis(10);

/// Longest id, in bytes: it is the name of a directory.
const MAX_ID: usize = 255;

/// Whether `id` can name a container: letters, digits, `_`, `+`, `-`, `.`, not `.` or `..` or hidden.
pub fn is_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    !id.is_empty() && id.len() <= MAX_ID && !id.starts_with('.') && id.chars().all(allowed)
}

/// What is wrong with an id, which may itself be long and strange.
pub fn bad_id(id: &str) -> String {
    let start: String = id.chars().take(64).collect();
    let rest = if start.len() < id.len() { "…" } else { "" };
    format!(
        "{start:?}{rest} is not a container id (up to {MAX_ID} letters, digits, `_`, `+`, `-`, `.`)"
    )
}

/// Exclusive right to one container, up to the end of its scope.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Store {
    /// A store below `root`, which `reserve` makes when needed.
    pub fn new(root: PathBuf) -> Store {
        Store { root }
    }

    /// The directory of one container.
    pub fn directory(&self, id: &str) -> Result<PathBuf, StateError> {
        if is_id(id) {
            Ok(self.root.join(id))
        } else {
            Err(StateError::BadId(id.to_owned()))
        }
    }

    /// Takes a new id, for this caller alone.
    pub fn reserve(&self, id: &str) -> Result<(PathBuf, Lock), StateError> {
        let failed = |source| StateError::Access {
            action: "make",
            id: id.to_owned(),
            source,
        };
        let directory = self.directory(id)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(failed)?;
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::Exists(id.to_owned()));
            }
            Err(error) => return Err(failed(error)),
        }
        let lock = self.lock(id)?;
        Ok((directory, lock))
    }

    /// Waits for the exclusive right to an existing container.
    pub fn lock(&self, id: &str) -> Result<Lock, StateError> {
        let file = self.lock_file(id)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|e| self.access("lock", id, e.into()))?;
        Ok(Lock(file))
    }

    /// As [`Store::lock`], for at most `patience`.
    pub fn lock_within(&self, id: &str, patience: Duration) -> Result<Lock, StateError> {
        let file = self.lock_file(id)?;
        let deadline = Instant::now() + patience;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(StateError::Held(id.to_owned())),
                Err(errno) => return Err(self.access("lock", id, errno.into())),
            }
        }
    }

    fn lock_file(&self, id: &str) -> Result<File, StateError> {
        let path = self.directory(id)?.join("lock");
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path);
        opened.map_err(|error| self.access("lock", id, error))
    }

    /// Writes the record; with `pid` set, the start time is taken from the kernel.
    pub fn save(&self, record: &mut Record) -> Result<(), StateError> {
        let id = record.id.clone();
        if record.pid > 0 {
            record.start_time = start_time(record.pid).map_err(|e| self.access("write", &id, e))?;
        }
        let text = serde_json::to_vec(record).map_err(|source| StateError::Damaged {
            id: id.clone(),
            source,
        })?;
        self.put(&id, RECORD, &text)
    }

    /// Writes a file of a container whole: a reader sees the old or the new one.
    pub fn put(&self, id: &str, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let directory = self.directory(id)?;
        let fresh = directory.join(format!(".{name}"));
        let write = || {
            let options = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .clone();
            options.open(&fresh)?.write_all(bytes)?;
            std::fs::rename(&fresh, directory.join(name))
        };
        write().map_err(|error| self.access("write", id, error))
    }

    /// Reads a file of a container.
    ///
    /// # Errors
    /// [`StateError::NotFound`] where there is no such container, [`StateError::Missing`] where it
    /// has no such file.
    pub fn get(&self, id: &str, name: &str) -> Result<Vec<u8>, StateError> {
        let directory = self.directory(id)?;
        let root = RootDir::open(directory).map_err(|error| self.access("open", id, error))?;
        root.read(name, MAX_BYTES)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StateError::Missing {
                    id: id.to_owned(),
                    file: name.to_owned(),
                },
                _ => self.access("read", id, error),
            })
    }

    /// Reads the record.
    pub fn load(&self, id: &str) -> Result<Record, StateError> {
        let missing = |read: &Result<Vec<u8>, _>| matches!(read, Err(StateError::Missing { .. }));
        let read = self.get(id, RECORD);
        if missing(&read) && missing(&self.get(id, CONFIG)) {
            // A create that has not come to its first record, or died before: nothing was made yet.
            return Err(StateError::NotFound(id.to_owned()));
        }
        let bytes = read?;
        serde_json::from_slice(&bytes).map_err(|source| StateError::Damaged {
            id: id.to_owned(),
            source,
        })
    }

    /// What a damaged record still tells, for a container that is to go: fields that are as they should
    /// be, and the cgroup also from the kept spec.
    pub fn salvage(&self, id: &str) -> Result<Record, StateError> {
        let parts: serde_json::Value = self
            .get(id, RECORD)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let text = |name: &str| parts[name].as_str().map(str::to_owned);
        let kept = || {
            let spec: serde_json::Value =
                serde_json::from_slice(&self.get(id, CONFIG).ok()?).ok()?;
            let path = spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
            let path = path.trim_start_matches('/');
            let default = format!("berth/{id}");
            let path = if path.is_empty() { &default } else { path };
            let plain = !path
                .split('/')
                .any(|part| part == ".." || part.contains(':'));
            Some(crate::cgroup::Host::probe().ok()?.mount.join(path)).filter(|_| plain)
        };
        let number = |name: &str| parts[name].as_u64().unwrap_or(0);
        Ok(Record {
            oci_version: text("oci_version").unwrap_or_default(),
            id: id.to_owned(),
            bundle: text("bundle").unwrap_or_default().into(),
            rootfs: text("rootfs").unwrap_or_default().into(),
            pid: i32::try_from(number("pid")).unwrap_or(0),
            start_time: number("start_time"),
            created: text("created").unwrap_or_default(),
            cgroup: text("cgroup").map(PathBuf::from).or_else(kept),
            scope: text("scope"),
            no_new_keyring: false,
            late_hooks: true,
            annotations: std::collections::BTreeMap::new(),
        })
    }

    /// The container's status now.
    pub fn status(&self, record: &Record) -> Result<Status, StateError> {
        if record.pid == 0 {
            return Ok(Status::Creating);
        }
        let init = record
            .init()
            .map_err(|error| self.access("observe", &record.id, error))?;
        if init.is_none() {
            return Ok(Status::Stopped);
        }
        let group = record
            .cgroup
            .as_deref()
            .and_then(|path| Cgroup::open(path).ok());
        // Asked first: an init that waits for its start may be frozen too, and would not hear of it.
        if group.is_some_and(|group| group.frozen().unwrap_or(false)) {
            return Ok(Status::Paused);
        }
        if self.waits_for_start(&record.id)? {
            return Ok(Status::Created);
        }
        Ok(Status::Running)
    }

    /// The socket at which a created container waits.
    pub fn gate(&self, id: &str) -> Result<PathBuf, StateError> {
        Ok(self.directory(id)?.join("start.sock"))
    }

    fn waits_for_start(&self, id: &str) -> Result<bool, StateError> {
        match std::fs::symlink_metadata(self.gate(id)?) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.access("observe", id, error)),
        }
    }

    /// Notes that the container was started.
    pub fn started(&self, id: &str) -> Result<(), StateError> {
        std::fs::remove_file(self.gate(id)?).map_err(|error| self.access("write", id, error))
    }

    /// User id of who made the container.
    pub fn owner(&self, id: &str) -> Result<u32, StateError> {
        std::fs::symlink_metadata(self.directory(id)?)
            .map(|metadata| metadata.uid())
            .map_err(|error| self.access("observe", id, error))
    }

    /// Forgets a container.
    pub fn remove(&self, id: &str) -> Result<(), StateError> {
        match std::fs::remove_dir_all(self.directory(id)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.access("remove", id, error))
            }
            _ => Ok(()),
        }
    }

    /// Ids of all containers, sorted.
    pub fn list(&self) -> Result<Vec<String>, StateError> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.access("list", "*", error)),
        };
        let mut ids: Vec<String> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    fn access(&self, action: &'static str, id: &str, source: io::Error) -> StateError {
        if source.kind() == io::ErrorKind::NotFound {
            return StateError::NotFound(id.to_owned());
        }
        StateError::Access {
            action,
            id: id.to_owned(),
            source,
        }
    }
}
