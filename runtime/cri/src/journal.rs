//! Durable records, group-committed: writers hand over and go on; one thread writes
//! what has gathered at once, which the end of this process cannot undo, and some time
//! later syncs the file system once for all of it, which is for the end of the machine.
//!
//! Invariant: changes of one name are applied in the order they were handed over, and
//! of several that gathered only the last is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::record::{self, RecordError};

/// How long what is written may wait for a sync. Each one is a commit of the file
/// system's own journal, for which every other change below the data directory waits.
const SYNC_WITHIN: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Queue {
    /// None: remove the file.
    changes: BTreeMap<PathBuf, Option<Vec<u8>>>,
    handed_over: u64,
    written: u64,
    committed: u64,
    /// When the first change was written that is not synced.
    unsynced_since: Option<Instant>,
    /// How many wait for a commit.
    waiting: usize,
    closed: bool,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Write,
    Sync,
    /// For so long at most.
    Wait(Option<Duration>),
    End,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The durable records below one directory.
pub struct Journal {
    dir: PathBuf,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal of `dir` with the sub-directories `kinds`, made when missing.
    pub fn open(dir: &Path, kinds: &[&str]) -> Result<Journal, RecordError> {
        for kind in kinds {
            record::make_dir(&dir.join(kind))?;
            drop_unfinished(&dir.join(kind))?;
        }
        let handle = std::fs::File::open(dir).map_err(record::io("open", dir))?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_batches(&theirs, &handle))
            .map_err(record::io("start the writer of", dir))?;
        Ok(Journal {
            dir: dir.to_owned(),
            shared,
            writer: Some(writer),
        })
    }

    /// Keeps `content` as `<kind>/<name>.json`, soon.
    pub fn put(&self, kind: &str, name: &str, content: Vec<u8>) {
        self.hand_over(kind, name, Some(content));
    }

    /// Removes `<kind>/<name>.json`, soon.
    pub fn remove(&self, kind: &str, name: &str) {
        self.hand_over(kind, name, None);
    }

    /// The files of `kind`, as of the last commit.
    pub fn list(&self, kind: &str) -> Result<Vec<PathBuf>, RecordError> {
        let mut files = record::list(&self.dir.join(kind))?;
        files.retain(|file| is_record(file));
        Ok(files)
    }

    /// Waits until everything handed over so far is on the disk.
    pub fn commit(&self) {
        let mut queue = self.shared.lock();
        let goal = queue.handed_over;
        queue.waiting += 1;
        self.shared.changed.notify_all();
        while queue.committed < goal {
            queue = self
                .shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.waiting -= 1;
    }

    fn hand_over(&self, kind: &str, name: &str, content: Option<Vec<u8>>) {
        let path = self.dir.join(kind).join(format!("{name}.json"));
        let mut queue = self.shared.lock();
        queue.changes.insert(path, content);
        queue.handed_over += 1;
        drop(queue);
        self.shared.changed.notify_all();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has already printed why.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes what a crash left between writing a file and giving it its name.
fn drop_unfinished(dir: &Path) -> Result<(), RecordError> {
    let files = record::list(dir)?;
    let mut unfinished = files.iter().filter(|file| !is_record(file));
    unfinished.try_for_each(|file| record::remove(file))
}

fn is_record(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "json")
}

impl Queue {
    /// A sync that is due goes before further changes, which could otherwise put it off forever.
    fn next(&self, now: Instant) -> Step {
        let left = self
            .unsynced_since
            .map(|since| SYNC_WITHIN.saturating_sub(now.duration_since(since)));
        let at_once = self.closed || self.waiting > 0;
        match left {
            Some(Duration::ZERO) => Step::Sync,
            _ if !self.changes.is_empty() => Step::Write,
            Some(_) if at_once => Step::Sync,
            None if self.closed => Step::End,
            left => Step::Wait(left),
        }
    }
}

fn write_batches(shared: &Shared, dir: &std::fs::File) {
    let mut queue = shared.lock();
    loop {
        queue = match queue.next(Instant::now()) {
            Step::End => return,
            Step::Wait(None) => shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner),
            Step::Wait(Some(left)) => {
                let woken = shared.changed.wait_timeout(queue, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            Step::Write => {
                let changes = std::mem::take(&mut queue.changes);
                let goal = queue.handed_over;
                queue.unsynced_since.get_or_insert_with(Instant::now);
                drop(queue);
                report(write_batch(changes));
                let mut queue = shared.lock();
                queue.written = goal;
                queue
            }
            Step::Sync => {
                let goal = queue.written;
                queue.unsynced_since = None;
                drop(queue);
                report(sync(dir));
                let mut queue = shared.lock();
                queue.committed = goal;
                shared.changed.notify_all();
                queue
            }
        };
    }
}

fn report(outcome: Result<(), RecordError>) {
    if let Err(error) = outcome {
        tracing::error!(error = %crate::status::chain(&error), "durable records are behind");
    }
}

fn write_batch(changes: BTreeMap<PathBuf, Option<Vec<u8>>>) -> Result<(), RecordError> {
    let mut first_failure = Ok(());
    for (path, content) in changes {
        let outcome = match content {
            Some(content) => record::write(&path, &content),
            None => record::remove(&path),
        };
        first_failure = first_failure.and(outcome);
    }
    first_failure
}

/// Renames and contents of all files become durable together.
fn sync(dir: &std::fs::File) -> Result<(), RecordError> {
    rustix::fs::syncfs(dir)
        .map_err(|errno| record::io("sync", Path::new("the journal"))(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_of_a_name_is_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), &["pods"]).unwrap();
        for round in 0..100u8 {
            journal.put("pods", "a", record::bytes(&round));
            journal.put("pods", "b", record::bytes(&round));
        }
        journal.remove("pods", "b");
        journal.commit();
        let files = journal.list("pods").unwrap();
        assert_eq!(files, [dir.path().join("pods/a.json")]);
        assert_eq!(record::read::<u8>(&files[0]).unwrap(), Some(99));
    }

    #[test]
    fn changes_are_written_at_once_and_synced_together() {
        let now = Instant::now();
        let mut queue = Queue::default();
        assert_eq!(queue.next(now), Step::Wait(None));
        queue.changes.insert("a".into(), None);
        assert_eq!(queue.next(now), Step::Write);
        queue.unsynced_since = Some(now);
        assert_eq!(queue.next(now + SYNC_WITHIN / 2), Step::Write);
        assert_eq!(queue.next(now + SYNC_WITHIN), Step::Sync);
        queue.changes.clear();
        let rest = SYNC_WITHIN / 2;
        assert_eq!(queue.next(now + rest), Step::Wait(Some(rest)));
        queue.waiting = 1;
        assert_eq!(queue.next(now), Step::Sync);
        queue.waiting = 0;
        queue.closed = true;
        assert_eq!(queue.next(now), Step::Sync);
        queue.unsynced_since = None;
        assert_eq!(queue.next(now), Step::End);
    }

    #[test]
    fn what_a_crash_left_unfinished_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().join("pods");
        record::make_dir(&pods).unwrap();
        for name in ["a.json", "a.new"] {
            record::write(&pods.join(name), b"1").unwrap();
        }
        let journal = Journal::open(dir.path(), &["pods"]).unwrap();
        assert_eq!(journal.list("pods").unwrap(), [pods.join("a.json")]);
        assert!(!pods.join("a.new").exists());
    }

    #[test]
    fn what_was_handed_over_is_written_before_the_journal_closes() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), &["pods"]).unwrap();
        journal.put("pods", "a", b"1".to_vec());
        drop(journal);
        assert_eq!(
            record::read::<u8>(&dir.path().join("pods/a.json")).unwrap(),
            Some(1)
        );
    }
}
