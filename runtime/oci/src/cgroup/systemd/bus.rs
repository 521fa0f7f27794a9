//! A connection to systemd's own socket, which speaks D-Bus without a bus daemon between.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::SystemdError;
use super::message::{self, Message, Reader, Writer};

/// Where PID 1 listens for root, if it is systemd.
pub(super) const SOCKET: &str = "/run/systemd/private";

/// How long systemd may take for an answer or a job.
const PATIENCE: Duration = Duration::from_secs(30);

const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// An open connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
    /// Jobs that have ended, object path and result: their signal may come before the call's answer.
    ended: Vec<(String, String)>,
}

impl Bus {
    /// Connects, and says who this is.
    pub(super) fn open(socket: &Path) -> Result<Bus, SystemdError> {
        let stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => SystemdError::NotRunning,
            _ => SystemdError::Talk(source),
        })?;
        Self::authenticate(stream).map_err(SystemdError::Talk)
    }

    /// D-Bus specification, "Authentication Protocol": the kernel vouches for the user id. `BEGIN`
    /// goes along with it, as from systemd's own tools: systemd reads both at once, and what it
    /// reads beyond `BEGIN` it leaves alone until something else comes. So a call may not follow
    /// before the answer.
    fn authenticate(stream: UnixStream) -> io::Result<Bus> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut stream = BufReader::new(stream);
        stream
            .get_mut()
            .write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut answer = String::new();
        (&mut stream).take(1024).read_line(&mut answer)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("refused: {}", answer.trim())));
        }
        Ok(Bus {
            stream,
            serial: 0,
            ended: Vec::new(),
        })
    }

    /// Calls a method of the manager; returns the body of its answer.
    pub(super) fn call(
        &mut self,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<Vec<u8>, SystemdError> {
        self.serial += 1;
        let bytes = message::call(self.serial, member, signature, body);
        let sent = self.stream.get_mut().write_all(&bytes);
        sent.map_err(SystemdError::Talk)?;
        loop {
            let message = self.receive()?;
            if message.reply_to != Some(self.serial) {
                self.note(&message);
                continue;
            }
            match message.kind {
                METHOD_RETURN => return Ok(message.body),
                ERROR => {
                    let said = Reader {
                        bytes: &message.body,
                        at: 0,
                    }
                    .text();
                    return Err(SystemdError::Refused {
                        name: message.error.unwrap_or_default(),
                        said: said.unwrap_or_default(),
                    });
                }
                _ => {}
            }
        }
    }

    /// Waits for the end of the job whose object path `answer` holds.
    pub(super) fn wait_for_job(&mut self, answer: &[u8]) -> Result<(), SystemdError> {
        let job = Reader {
            bytes: answer,
            at: 0,
        }
        .text()
        .ok_or(SystemdError::Nonsense)?;
        loop {
            let found = self.ended.iter().find(|(path, _)| *path == job);
            match found.map(|(_, result)| result.as_str()) {
                Some("done") => return Ok(()),
                Some(other) => return Err(SystemdError::Job(other.to_owned())),
                None => {
                    let message = self.receive()?;
                    self.note(&message);
                }
            }
        }
    }

    /// `JobRemoved(u id, o job, s unit, s result)`
    fn note(&mut self, message: &Message) {
        if message.member.as_deref() != Some("JobRemoved") {
            return;
        }
        let mut reader = Reader {
            bytes: &message.body,
            at: 0,
        };
        let ended = (|| {
            reader.u32()?;
            let (job, _unit, result) = (reader.text()?, reader.text()?, reader.text()?);
            Some((job, result))
        })();
        self.ended.extend(ended);
    }

    fn receive(&mut self) -> Result<Message, SystemdError> {
        let mut bytes = vec![0; message::START];
        let read = self.stream.read_exact(&mut bytes);
        read.map_err(SystemdError::Talk)?;
        let length = message::length(&bytes).ok_or(SystemdError::Nonsense)?;
        bytes.resize(length, 0);
        let rest = bytes.get_mut(message::START..);
        let rest = rest.ok_or(SystemdError::Nonsense)?;
        let read = self.stream.read_exact(rest);
        read.map_err(SystemdError::Talk)?;
        message::parse(&bytes).ok_or(SystemdError::Nonsense)
    }
}
