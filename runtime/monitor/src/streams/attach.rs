//! Attachments: a client's descriptors connected with a container's streams.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;

use super::{ATTACHMENTS_MAX, Note, Streams};
use crate::log::Stream;
use crate::reactor::{Interest, Token, Watched};

/// Bytes taken from an attachment's standard input at once.
const INPUT_CHUNK: usize = 4096;

/// A client's descriptors; those absent are not wanted.
#[derive(Debug, Default)]
pub struct AttachFds {
    /// To be read and fed to the container.
    pub stdin: Option<OwnedFd>,
    /// Gets the container's output.
    pub stdout: Option<OwnedFd>,
    /// Gets the container's error output.
    pub stderr: Option<OwnedFd>,
}

/// Why a client could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The container's streams are gone.
    #[error("the container's streams have ended")]
    Ended,
    /// The container has no open standard input.
    #[error("the container's standard input is not open")]
    NoStdin,
    /// There are too many already.
    #[error("the pod has {ATTACHMENTS_MAX} attachments already")]
    TooMany,
    /// The descriptor cannot be waited for.
    #[error("cannot use the descriptor sent for {stream}")]
    Descriptor {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

struct Output {
    fd: Watched,
    /// What the client has not taken; at most one chunk.
    pending: Vec<u8>,
    /// Since when nothing of it was taken.
    since: Instant,
}

pub(super) struct Attachment {
    pub(super) container: u32,
    stdin: Option<Watched>,
    outputs: [Option<Output>; 2],
    /// The container's output has ended: give what is pending, then end.
    ending: bool,
}

impl Attachment {
    /// Gives a chunk to the client's descriptor for `stream`, as far as it takes it.
    pub(super) fn deliver(&mut self, stream: Stream, chunk: &[u8]) {
        let slot = &mut self.outputs[stream.index()];
        let Some(output) = slot else { return };
        debug_assert!(
            output.pending.is_empty(),
            "outputs are not read while an attachment has bytes pending"
        );
        match write_some(&output.fd, chunk) {
            Ok(count) if count < chunk.len() => {
                output.pending.extend_from_slice(&chunk[count..]);
                output.since = Instant::now();
            }
            Ok(_) => {}
            Err(_) => *slot = None,
        }
    }

    /// Gives more of what is pending.
    fn flush(&mut self, stream: Stream) {
        let slot = &mut self.outputs[stream.index()];
        let Some(output) = slot else { return };
        match write_some(&output.fd, &output.pending) {
            Ok(0) if !output.pending.is_empty() => {}
            Ok(count) => {
                output.pending.drain(..count);
                output.since = Instant::now();
                if output.pending.is_empty() {
                    output.pending = Vec::new();
                }
            }
            Err(_) => *slot = None,
        }
    }

    pub(super) fn is_pending(&self, stream: Stream) -> bool {
        let output = &self.outputs[stream.index()];
        output
            .as_ref()
            .is_some_and(|output| !output.pending.is_empty())
    }

    /// Since when output waits for this client; `None` when none does.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let pending = self
            .outputs
            .iter()
            .flatten()
            .filter(|output| !output.pending.is_empty());
        pending.map(|output| output.since).min()
    }

    /// Watches what can be moved now.
    pub(super) fn settle(&mut self, input_open: bool, input_full: bool) -> io::Result<()> {
        if !input_open {
            // Closing it tells the client by a broken pipe that nobody reads.
            self.stdin = None;
        }
        if let Some(stdin) = &mut self.stdin {
            stdin.want((!input_full).then_some(Interest::Read))?;
        }
        for output in self.outputs.iter_mut().flatten() {
            let wanted = !output.pending.is_empty();
            output.fd.want(wanted.then_some(Interest::Write))?;
        }
        Ok(())
    }
}

impl Streams {
    /// Connects a client with a container's streams and returns the attachment's number.
    pub fn attach(&mut self, container: u32, fds: AttachFds) -> Result<u32, AttachError> {
        let entry = self.containers.get(&container).ok_or(AttachError::Ended)?;
        if entry.outputs.iter().all(Option::is_none) {
            return Err(AttachError::Ended);
        }
        if fds.stdin.is_some() && entry.input.as_ref().is_none_or(|input| input.closing) {
            return Err(AttachError::NoStdin);
        }
        if self.attachments.len() >= ATTACHMENTS_MAX {
            return Err(AttachError::TooMany);
        }
        let number = self.next_attachment;
        let take = |fd: Option<OwnedFd>, token, stream| {
            fd.map(|fd| self.adopt(fd, token, stream)).transpose()
        };
        let output = |fd: Watched| Output {
            fd,
            pending: Vec::new(),
            since: Instant::now(),
        };
        let stdin = take(fds.stdin, Token::AttachInput(number), "stdin")?;
        let stdout = take(
            fds.stdout,
            Token::AttachOutput(number, Stream::Stdout),
            "stdout",
        )?;
        let stderr = take(
            fds.stderr,
            Token::AttachOutput(number, Stream::Stderr),
            "stderr",
        )?;
        let attachment = Attachment {
            container,
            stdin,
            outputs: [stdout.map(output), stderr.map(output)],
            ending: false,
        };
        self.attachments.insert(number, attachment);
        self.next_attachment += 1;
        self.settle(container)
            .map_err(|source| AttachError::Descriptor {
                stream: "the attachment",
                source,
            })?;
        Ok(number)
    }

    /// Makes a client's descriptor non-blocking and sees whether it can be waited for: a plain file cannot.
    fn adopt(
        &self,
        fd: OwnedFd,
        token: Token,
        stream: &'static str,
    ) -> Result<Watched, AttachError> {
        let failed = |source| AttachError::Descriptor { stream, source };
        rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| failed(errno.into()))?;
        let mut watched = Watched::new(&self.reactor, fd, token);
        watched.want(Some(Interest::ReadWrite)).map_err(failed)?;
        watched.want(None).map_err(failed)?;
        Ok(watched)
    }

    /// Disconnects a client.
    pub fn detach(&mut self, number: u32) {
        let Some(attachment) = self.attachments.remove(&number) else {
            return;
        };
        if attachment.stdin.is_some() {
            self.stdin_left(attachment.container);
        }
        // A descriptor of another client cannot fail to be watched because this one is gone.
        let _ = self.settle(attachment.container);
    }

    /// Moves a client's input on to the container.
    pub fn attach_input_ready(&mut self, number: u32) -> io::Result<()> {
        let Some(attachment) = self.attachments.get_mut(&number) else {
            return Ok(());
        };
        let container = attachment.container;
        let Some(stdin) = &attachment.stdin else {
            return Ok(());
        };
        let mut bytes = [0u8; INPUT_CHUNK];
        match rustix::io::read(stdin, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => {
                attachment.stdin = None;
                self.stdin_left(container);
            }
            Ok(count) => self.feed(container, &bytes[..count]),
        }
        self.settle(container)
    }

    /// Moves more output on to a client.
    pub fn attach_output_ready(&mut self, number: u32, stream: Stream) -> io::Result<()> {
        let Some(attachment) = self.attachments.get_mut(&number) else {
            return Ok(());
        };
        attachment.flush(stream);
        let container = attachment.container;
        if attachment.ending && attachment.stalled_since().is_none() {
            self.end_attachment(number);
        }
        self.settle(container)?;
        match self.attachments.get_mut(&number) {
            // Its container is gone, so nobody else settles it.
            Some(attachment) => attachment.settle(false, false),
            None => Ok(()),
        }
    }

    /// Ends all attachments of a container whose output has ended, as soon as they have taken it.
    pub(super) fn end_attachments(&mut self, container: u32) {
        let mut done = Vec::new();
        for (number, attachment) in &mut self.attachments {
            if attachment.container == container {
                attachment.ending = true;
                if attachment.stalled_since().is_none() {
                    done.push(*number);
                }
            }
        }
        for number in done {
            self.end_attachment(number);
        }
    }

    fn end_attachment(&mut self, number: u32) {
        self.attachments.remove(&number);
        self.notes.push(Note::AttachEnded(number));
    }

    /// An attachment with standard input has ended.
    fn stdin_left(&mut self, container: u32) {
        if self
            .containers
            .get(&container)
            .is_some_and(|entry| entry.stdin_once)
        {
            self.close_stdin(container);
        }
    }
}

/// Writes what the descriptor takes without waiting; 0 when it takes nothing now.
fn write_some(fd: &Watched, bytes: &[u8]) -> rustix::io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::write(fd, &bytes[done..]) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}
