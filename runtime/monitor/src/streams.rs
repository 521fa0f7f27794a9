//! Moves bytes between containers, the log and attachments, without ever waiting.
//!
//! ```text
//! container stdout/stderr ──▶ chunk ──▶ log thread
//!                                └────▶ every attachment (what its pipe does not take is pending)
//! attachment stdin ──▶ container stdin (what the pipe does not take is pending)
//! ```
//!
//! Invariant: an output is watched exactly when a chunk is free and no attachment of that stream has bytes pending;
//! an attachment's stdin is watched exactly when the container's stdin has nothing pending. So each hop holds at
//! most one chunk, and a slow reader slows the writer instead of growing the monitor. An attachment that takes
//! nothing for [`STALL`] is dropped: a hung client must not hang the workload.

mod attach;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use berth_sys::pty;
use rustix::io::Errno;

use crate::log::{LogId, Logs, Report, Stream};
use crate::reactor::{Interest, Reactor, Token, Watched};
use crate::stdio::Ends;
use crate::time;

use attach::Attachment;
pub use attach::{AttachError, AttachFds};

/// How long an attachment may take nothing while output waits for it.
pub const STALL: Duration = Duration::from_secs(10);
/// Most attachments of one pod.
pub const ATTACHMENTS_MAX: usize = 32;

/// What happened to streams that others care for.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    /// The attachment has ended: all output was given, or it stalled or closed its ends.
    AttachEnded(u32),
    /// Both outputs of the container have ended and are in the log.
    Drained(u32),
    /// The answer to [`Streams::reopen`].
    Reopened(u32, Option<String>),
    /// So many bytes more of the container's output are lost.
    Lost(u32, u64),
}

/// A container's standard input.
struct Input {
    fd: Watched,
    pending: Vec<u8>,
    /// Close it when nothing is pending any more.
    closing: bool,
}

struct Container {
    outputs: [Option<Watched>; 2],
    input: Option<Input>,
    tty: bool,
    stdin_once: bool,
    log: Option<LogId>,
}

/// How a container's streams behave.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The output is a terminal's master.
    pub tty: bool,
    /// Close stdin when the first attachment with stdin ends.
    pub stdin_once: bool,
}

/// All streams of the pod.
pub struct Streams {
    reactor: Rc<Reactor>,
    logs: Logs,
    containers: BTreeMap<u32, Container>,
    attachments: BTreeMap<u32, Attachment>,
    next_attachment: u32,
    /// No chunk is free; nothing is read until the log thread reports room.
    starved: bool,
    notes: Vec<Note>,
}

impl Streams {
    /// No streams yet.
    pub fn new(reactor: &Rc<Reactor>) -> io::Result<Self> {
        let logs = Logs::new()?;
        reactor.watch(logs.wake_fd(), Token::Logs, Interest::Read)?;
        Ok(Self {
            reactor: Rc::clone(reactor),
            logs,
            containers: BTreeMap::new(),
            attachments: BTreeMap::new(),
            next_attachment: 1,
            starved: false,
            notes: Vec::new(),
        })
    }

    /// The log, to open files before a container starts.
    pub fn logs(&mut self) -> &mut Logs {
        &mut self.logs
    }

    /// Starts to serve a container's streams.
    pub fn add(
        &mut self,
        container: u32,
        ends: Ends,
        log: Option<LogId>,
        options: Options,
    ) -> io::Result<()> {
        let watched =
            |fd: Option<OwnedFd>, token| fd.map(|fd| Watched::new(&self.reactor, fd, token));
        let outputs = [
            watched(ends.output, Token::Output(container, Stream::Stdout)),
            watched(ends.error, Token::Output(container, Stream::Stderr)),
        ];
        let input = watched(ends.input, Token::Input(container)).map(|fd| Input {
            fd,
            pending: Vec::new(),
            closing: false,
        });
        let entry = Container {
            outputs,
            input,
            tty: options.tty,
            stdin_once: options.stdin_once,
            log,
        };
        self.containers.insert(container, entry);
        self.settle(container)
    }

    /// Drops a container's streams and closes its log.
    pub fn remove(&mut self, container: u32) {
        let Some(entry) = self.containers.remove(&container) else {
            return;
        };
        if let Some(log) = entry.log {
            self.logs.close(log);
        }
        self.end_attachments(container);
    }

    /// Reads one chunk of a container's output.
    pub fn output_ready(&mut self, container: u32, stream: Stream) -> io::Result<()> {
        let Some(entry) = self.containers.get(&container) else {
            return Ok(());
        };
        let Some(fd) = &entry.outputs[stream.index()] else {
            return Ok(());
        };
        let Some(mut chunk) = self.logs.buffer() else {
            self.starved = true;
            return self.settle_all();
        };
        let log = entry.log;
        match rustix::io::read(fd, rustix::buffer::spare_capacity(&mut chunk)) {
            // A terminal whose last holder is gone reads as EIO (pty(7)).
            Ok(0) | Err(Errno::IO) => {
                self.logs.give_back(chunk);
                self.output_ended(container, stream);
                return Ok(());
            }
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => {
                self.logs.give_back(chunk);
                return Ok(());
            }
            Err(errno) => {
                self.logs.give_back(chunk);
                self.output_ended(container, stream);
                return Err(errno.into());
            }
        }
        for attachment in self.attachments.values_mut() {
            if attachment.container == container {
                attachment.deliver(stream, &chunk);
            }
        }
        match log {
            Some(log) => self.logs.write(log, stream, time::now(), chunk)?,
            None => self.logs.give_back(chunk),
        }
        self.settle(container)
    }

    /// Goes on writing what the container's standard input did not take.
    pub fn input_ready(&mut self, container: u32) -> io::Result<()> {
        self.feed(container, &[]);
        self.settle(container)
    }

    /// Takes what the log thread reports.
    pub fn logs_ready(&mut self) -> io::Result<()> {
        for report in self.logs.reports() {
            match report {
                Report::Room => self.starved = false,
                Report::Reopened { log, error } => {
                    self.note(log, |owner| Note::Reopened(owner, error))
                }
                Report::Flushed { log } => self.note(log, Note::Drained),
                Report::Lost { log, bytes } => self.note(log, |owner| Note::Lost(owner, bytes)),
            }
        }
        self.settle_all()
    }

    /// Opens the container's log anew; the answer is a [`Note::Reopened`] unless false comes back: it has none.
    pub fn reopen(&mut self, container: u32) -> io::Result<bool> {
        let Some(log) = self.containers.get(&container).and_then(|entry| entry.log) else {
            return Ok(false);
        };
        self.logs.reopen(log)?;
        Ok(true)
    }

    /// Closes the container's standard input once what is pending is written; false when it has none.
    pub fn close_stdin(&mut self, container: u32) -> bool {
        let Some(input) = self
            .containers
            .get_mut(&container)
            .and_then(|entry| entry.input.as_mut())
        else {
            return false;
        };
        input.closing = true;
        self.feed(container, &[]);
        true
    }

    /// Sets the size of the container's terminal; `None` when it has none.
    pub fn resize(&self, container: u32, rows: u16, cols: u16) -> Option<io::Result<()>> {
        let entry = self.containers.get(&container).filter(|entry| entry.tty)?;
        let console = entry.outputs[Stream::Stdout.index()].as_ref()?;
        Some(pty::resize(console, rows, cols))
    }

    /// Takes what happened since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// When [`Streams::deadline_passed`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        let stalled = self
            .attachments
            .values()
            .filter_map(Attachment::stalled_since);
        Some(stalled.min()? + STALL)
    }

    /// Drops attachments that have stalled for too long.
    pub fn deadline_passed(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let hung = |attachment: &Attachment| {
            attachment
                .stalled_since()
                .is_some_and(|since| now >= since + STALL)
        };
        let hung: Vec<u32> = self
            .attachments
            .iter()
            .filter(|(_, attachment)| hung(attachment))
            .map(|(number, _)| *number)
            .collect();
        for number in hung {
            self.detach(number);
            self.notes.push(Note::AttachEnded(number));
        }
        self.settle_all()
    }

    /// Writes everything queued to the logs and ends the log thread.
    pub fn finish(&mut self) {
        self.logs.finish();
    }

    /// Notes something about the container whose log it is, if it is still there.
    fn note(&mut self, log: LogId, make: impl FnOnce(u32) -> Note) {
        let owns = |entry: &Container| entry.log == Some(log);
        let found = self.containers.iter().find(|(_, entry)| owns(entry));
        if let Some((container, _)) = found {
            self.notes.push(make(*container));
        }
    }

    fn output_ended(&mut self, container: u32, stream: Stream) {
        let Some(entry) = self.containers.get_mut(&container) else {
            return;
        };
        entry.outputs[stream.index()] = None;
        if let Some(log) = entry.log {
            self.logs.end(log, stream);
        }
        if entry.outputs.iter().any(Option::is_some) {
            return;
        }
        // The flush's report is the note; without anything to flush it is said here.
        if entry.log.is_none_or(|log| self.logs.flush(log)) {
            self.notes.push(Note::Drained(container));
        }
        self.end_attachments(container);
    }

    /// Writes `bytes` after what is pending to the container's standard input; keeps what it does not take.
    fn feed(&mut self, container: u32, bytes: &[u8]) {
        let Some(entry) = self.containers.get_mut(&container) else {
            return;
        };
        let Some(input) = &mut entry.input else {
            return;
        };
        input.pending.extend_from_slice(bytes);
        let mut done = 0;
        let broken = loop {
            if done == input.pending.len() {
                break false;
            }
            match rustix::io::write(&input.fd, &input.pending[done..]) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break false,
                Err(_) => break true,
            }
        };
        input.pending.drain(..done);
        if broken || (input.closing && input.pending.is_empty()) {
            entry.input = None;
        } else if input.pending.is_empty() {
            input.pending = Vec::new();
        }
    }

    fn settle_all(&mut self) -> io::Result<()> {
        let all: Vec<u32> = self.containers.keys().copied().collect();
        all.into_iter()
            .try_for_each(|container| self.settle(container))
    }

    /// Restores the invariant for one container: watches what can be moved now.
    fn settle(&mut self, container: u32) -> io::Result<()> {
        let Some(entry) = self.containers.get_mut(&container) else {
            return Ok(());
        };
        let mut pending = [false; 2];
        let mut input_open = false;
        let mut input_full = false;
        if let Some(input) = &mut entry.input {
            input_open = !input.closing;
            input_full = !input.pending.is_empty();
            input.fd.want(input_full.then_some(Interest::Write))?;
        }
        for attachment in self.attachments.values_mut() {
            if attachment.container == container {
                attachment.settle(input_open, input_full)?;
                for stream in [Stream::Stdout, Stream::Stderr] {
                    pending[stream.index()] |= attachment.is_pending(stream);
                }
            }
        }
        for (output, pending) in entry.outputs.iter_mut().zip(pending) {
            if let Some(output) = output {
                let wanted = !self.starved && !pending;
                output.want(wanted.then_some(Interest::Read))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
