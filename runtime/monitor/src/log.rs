//! Container output to a log file in the CRI format, off the event loop.
//!
//! ```text
//! event loop: read ≤ 16 KiB ──Chunk──▶ queue ──▶ thread "log": split lines, batch, write
//!        ◀──── buffers given back, answers (eventfd) ────┘
//! ```
//!
//! Invariant: at most [`CHUNKS`] chunks are between the loop and the disk, so a stalled disk stops the reading of
//! output (the workload blocks on its pipe) and nothing else. The thread exists only once there is output.

mod format;
mod writer;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;
use rustix::fs::OFlags;

pub use format::{LINE_MAX, Stream};

/// Bytes read from a stream at once.
pub const CHUNK: usize = 16 * 1024;
/// Most chunks under way to the disk, over all containers of the pod.
pub const CHUNKS: usize = 4;
/// Stack of the log thread, in bytes: it formats into heap buffers and recurses nowhere.
const STACK: usize = 64 * 1024;

/// Names a log within one monitor.
pub type LogId = u32;

/// What the log thread reports.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// Buffers are free again: streams that waited may be read.
    Room,
    /// The log was opened anew; an error keeps the old file in use.
    Reopened { log: LogId, error: Option<String> },
    /// Everything queued for this log before [`Logs::flush`] is written.
    Flushed { log: LogId },
    /// So many bytes of output more could not be written.
    Lost { log: LogId, bytes: u64 },
}

enum Job {
    Open {
        log: LogId,
        file: File,
        path: PathBuf,
    },
    Chunk {
        log: LogId,
        stream: Stream,
        time: i64,
        bytes: Vec<u8>,
    },
    End {
        log: LogId,
        stream: Stream,
    },
    Reopen {
        log: LogId,
    },
    Flush {
        log: LogId,
    },
    Close {
        log: LogId,
    },
    Stop,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    free: Vec<Vec<u8>>,
    reports: Vec<Report>,
    /// The loop found no free buffer and wants [`Report::Room`].
    starved: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    wake: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic of the thread leaves the queue consistent: every change to it is a single push or pop.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's side of all logs of a pod.
pub struct Logs {
    shared: Arc<Shared>,
    /// Logs that had no output yet, still on this side.
    idle: Vec<(LogId, File, PathBuf)>,
    thread: Option<std::thread::JoinHandle<()>>,
    buffers: usize,
    next: LogId,
}

impl Logs {
    /// Makes the queue; no thread yet.
    pub fn new() -> io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            shared: Arc::new(Shared {
                queue: Mutex::new(Queue::default()),
                work: Condvar::new(),
                wake,
            }),
            idle: Vec::new(),
            thread: None,
            buffers: 0,
            next: 1,
        })
    }

    /// Readable when [`Logs::reports`] has something.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    /// Opens `path` for appending and returns the new log's name. Only to create the file, where nobody has, can
    /// this wait for the disk.
    pub fn open(&mut self, path: &Path) -> io::Result<LogId> {
        let file = open_log(path)?;
        let log = self.next;
        self.next += 1;
        self.idle.push((log, file, path.to_path_buf()));
        Ok(log)
    }

    /// An empty buffer of [`CHUNK`] bytes capacity; `None` when all are under way: read later, after
    /// [`Report::Room`].
    pub fn buffer(&mut self) -> Option<Vec<u8>> {
        let mut queue = self.shared.lock();
        if let Some(buffer) = queue.free.pop() {
            return Some(buffer);
        }
        if self.buffers < CHUNKS {
            self.buffers += 1;
            return Some(Vec::with_capacity(CHUNK));
        }
        queue.starved = true;
        None
    }

    /// Gives back a buffer that was not needed.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.shared.lock().free.push(buffer);
    }

    /// Queues what was read from a stream at `time` (nanoseconds since 1970).
    pub fn write(
        &mut self,
        log: LogId,
        stream: Stream,
        time: i64,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        self.hand_over(log)?;
        self.push(Job::Chunk {
            log,
            stream,
            time,
            bytes,
        });
        Ok(())
    }

    /// Says that a stream has ended, so that an unfinished line is written.
    pub fn end(&mut self, log: LogId, stream: Stream) {
        if !self.is_idle(log) {
            self.push(Job::End { log, stream });
        }
    }

    /// Opens the log's path anew, which may wait for the disk; [`Report::Reopened`] follows.
    pub fn reopen(&mut self, log: LogId) -> io::Result<()> {
        self.hand_over(log)?;
        self.push(Job::Reopen { log });
        Ok(())
    }

    /// Asks for [`Report::Flushed`]; true when nothing is under way.
    pub fn flush(&mut self, log: LogId) -> bool {
        if self.is_idle(log) {
            return true;
        }
        self.push(Job::Flush { log });
        false
    }

    /// Writes what is queued and closes the log.
    pub fn close(&mut self, log: LogId) {
        if self.is_idle(log) {
            self.idle.retain(|entry| entry.0 != log);
        } else {
            self.push(Job::Close { log });
        }
    }

    /// Takes what the thread reported since the last call.
    pub fn reports(&mut self) -> Vec<Report> {
        let mut counter = [0u8; 8];
        // Nothing to read means that an earlier call took the report already.
        let _ = rustix::io::read(&self.shared.wake, &mut counter);
        std::mem::take(&mut self.shared.lock().reports)
    }

    /// Writes what is queued and ends the thread; there is no log afterwards.
    pub fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.push(Job::Stop);
            // The thread cannot fail but by a panic, and then there is nothing left to wait for.
            let _ = thread.join();
        }
    }

    fn is_idle(&self, log: LogId) -> bool {
        self.idle.iter().any(|entry| entry.0 == log)
    }

    /// Passes a log to the thread at its first output, starting the thread at the first of all.
    fn hand_over(&mut self, log: LogId) -> io::Result<()> {
        let Some(at) = self.idle.iter().position(|entry| entry.0 == log) else {
            return Ok(());
        };
        if self.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name("log".to_owned())
                .stack_size(STACK)
                .spawn(move || writer::Writer::new(shared).run())?;
            self.thread = Some(thread);
        }
        let (log, file, path) = self.idle.swap_remove(at);
        self.push(Job::Open { log, file, path });
        Ok(())
    }

    fn push(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    // NOFOLLOW: whoever can write the pod's log directory must not aim the log at another file.
    // NONBLOCK, for the opening only: nor make the monitor wait for a reader of a FIFO.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    options
        .append(true)
        .mode(0o640)
        .custom_flags(flags.bits().cast_signed());
    // O_CREAT waits for a stalled disk even where there is nothing to create.
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => options.create(true).open(path)?,
        opened => opened?,
    };
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a file nor a character device",
        ));
    }
    rustix::io::ioctl_fionbio(&file, false)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
