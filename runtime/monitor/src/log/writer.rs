//! The log thread: formats queued chunks into one buffer and writes it in as few calls as it can.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::format::{self, Entry, LINE_MAX, PREFIX_LEN};
use super::{Job, LogId, Report, Shared, Stream, open_log};

/// Bytes gathered for one write; one entry of the greatest length fits.
const BATCH: usize = 32 * 1024;
const _: () = assert!(BATCH > LINE_MAX + PREFIX_LEN + 2);

struct LogFile {
    log: LogId,
    file: File,
    path: PathBuf,
    /// Unfinished lines of both streams, each at most [`LINE_MAX`] bytes.
    held: [Vec<u8>; 2],
    /// Time of the newest chunk, for an unfinished line at the end.
    time: i64,
    /// A failed write may have left half an entry in the file.
    torn: bool,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    files: Vec<LogFile>,
    /// Entries ready for the file `batch_of`.
    batch: Vec<u8>,
    batch_of: LogId,
    lost: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            files: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            batch_of: 0,
            lost: 0,
        }
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        loop {
            let jobs = self.wait();
            for job in jobs {
                if matches!(job, Job::Stop) {
                    self.write_batch();
                    return;
                }
                self.perform(job);
            }
            self.write_batch();
        }
    }

    fn wait(&self) -> VecDeque<Job> {
        let mut queue = self.shared.lock();
        while queue.jobs.is_empty() {
            queue = self
                .shared
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut queue.jobs)
    }

    fn perform(&mut self, job: Job) {
        match job {
            Job::Open { log, file, path } => self.files.push(LogFile {
                log,
                file,
                path,
                held: [Vec::new(), Vec::new()],
                time: 0,
                torn: false,
            }),
            Job::Chunk {
                log,
                stream,
                time,
                bytes,
            } => {
                self.append(log, stream, time, &bytes);
                self.give_back(bytes);
            }
            Job::End { log, stream } => self.end(log, stream),
            Job::Reopen { log } => {
                self.write_batch();
                let error = self.reopen(log).err().map(|error| error.to_string());
                self.report(Report::Reopened { log, error });
            }
            Job::Flush { log } => {
                self.write_batch();
                self.report(Report::Flushed { log });
            }
            Job::Close { log } => {
                self.end(log, Stream::Stdout);
                self.end(log, Stream::Stderr);
                self.write_batch();
                self.files.retain(|file| file.log != log);
            }
            Job::Stop => {}
        }
    }

    fn append(&mut self, log: LogId, stream: Stream, time: i64, bytes: &[u8]) {
        let Some(at) = self.select(log) else { return };
        let mut held = std::mem::take(&mut self.files[at].held[stream.index()]);
        self.files[at].time = time;
        let mut prefix = format::prefix(time, stream);
        format::split(&mut held, bytes, |entry| {
            self.push_entry(&mut prefix, entry)
        });
        if held.is_empty() && held.capacity() > 1024 {
            // One long line must not cost the pod a buffer for ever.
            held = Vec::new();
        }
        self.files[at].held[stream.index()] = held;
    }

    fn end(&mut self, log: LogId, stream: Stream) {
        let Some(at) = self.select(log) else { return };
        let held = std::mem::take(&mut self.files[at].held[stream.index()]);
        if !held.is_empty() {
            let mut prefix = format::prefix(self.files[at].time, stream);
            let entry = Entry {
                full: false,
                held: &held,
                fresh: &[],
            };
            self.push_entry(&mut prefix, &entry);
        }
    }

    /// Makes `log` the one that the batch is for.
    fn select(&mut self, log: LogId) -> Option<usize> {
        if self.batch_of != log {
            self.write_batch();
            self.batch_of = log;
        }
        self.files.iter().position(|file| file.log == log)
    }

    fn push_entry(&mut self, prefix: &mut [u8; PREFIX_LEN], entry: &Entry<'_>) {
        let length = PREFIX_LEN + entry.held.len() + entry.fresh.len() + 1;
        if self.batch.len() + length > BATCH {
            self.write_batch();
        }
        prefix[PREFIX_LEN - 2] = if entry.full { b'F' } else { b'P' };
        self.batch.extend_from_slice(prefix);
        self.batch.extend_from_slice(entry.held);
        self.batch.extend_from_slice(entry.fresh);
        self.batch.push(b'\n');
    }

    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let log = self.batch_of;
        if let Some(file) = self.files.iter_mut().find(|file| file.log == log) {
            self.lost = write_entries(file, &self.batch);
        }
        self.batch.clear();
        if self.lost > 0 {
            let bytes = std::mem::take(&mut self.lost);
            self.report(Report::Lost { log, bytes });
        }
    }

    fn reopen(&mut self, log: LogId) -> io::Result<()> {
        if let Some(file) = self.files.iter_mut().find(|file| file.log == log) {
            file.file = open_log(&file.path)?;
            file.torn = false;
        }
        Ok(())
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut queue = self.shared.lock();
        queue.free.push(buffer);
        if std::mem::take(&mut queue.starved) {
            queue.reports.push(Report::Room);
            drop(queue);
            self.wake();
        }
    }

    fn report(&self, report: Report) {
        self.shared.lock().reports.push(report);
        self.wake();
    }

    fn wake(&self) {
        // It can fail only when the counter is at its greatest value, and then the loop is awake anyway.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

/// Writes `batch` and returns how many bytes of it are lost: output goes on when the disk is full.
fn write_entries(log: &mut LogFile, batch: &[u8]) -> u64 {
    if log.torn && log.file.write_all(b"\n").is_err() {
        return batch.len() as u64;
    }
    log.torn = false;
    let mut done = 0;
    while done < batch.len() {
        match log.file.write(&batch[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    log.torn = done < batch.len() && done > 0 && batch[done - 1] != b'\n';
    (batch.len() - done) as u64
}
