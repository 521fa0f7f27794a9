//! A streaming client as kubectl has one, written from the SPDY draft independently of
//! the server's half: enough to open streams, send, half-close and read to the end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bound on every wait, so that a hang fails its test.
const WITHIN: Duration = Duration::from_secs(20);
/// The SPDY/3 header dictionary, for compressing; the client never inflates.
const DICTIONARY: &[u8] = include_bytes!("spdy-dictionary.bin");

/// An upgraded connection.
pub struct Streaming {
    socket: TcpStream,
    deflate: Compress,
    next: u32,
    buffer: Vec<u8>,
    /// Bytes received, by stream.
    pub received: BTreeMap<u32, Vec<u8>>,
    /// Streams the server has closed or reset.
    pub finished: Vec<u32>,
}

impl Streaming {
    /// Opens `url` with the stream protocol `protocol`.
    ///
    /// # Errors
    /// The server does not upgrade; its answer is the text.
    pub async fn open(url: &str, protocol: &str) -> Result<Streaming> {
        let rest = url.strip_prefix("http://").context("not an http URL")?;
        let (address, path) = rest.split_once('/').context("no path")?;
        let mut socket = TcpStream::connect(address).await?;
        let request = format!(
            "POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(WITHIN, socket.read_u8()).await??;
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("HTTP/1.1 101") {
            bail!("not upgraded: {head}");
        }
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(DICTIONARY)?;
        let (received, finished) = (BTreeMap::new(), Vec::new());
        Ok(Streaming {
            socket,
            deflate,
            next: 1,
            buffer: Vec::new(),
            received,
            finished,
        })
    }

    /// Opens a stream with `headers`; its number.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn stream(&mut self, headers: &[(&str, &str)]) -> Result<u32> {
        let id = self.next;
        self.next += 2;
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 256);
        self.deflate
            .compress_vec(&plain, &mut block, FlushCompress::Sync)?;
        let mut body = id.to_be_bytes().to_vec();
        body.extend([0; 6]);
        body.extend(block);
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        self.socket.write_all(&frame).await?;
        Ok(id)
    }

    /// Sends `bytes` on a stream, and closes our half with `fin`.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, stream: u32, bytes: &[u8], fin: bool) -> Result<()> {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend((bytes.len() as u32 | u32::from(fin) << 24).to_be_bytes());
        frame.extend(bytes);
        self.socket.write_all(&frame).await?;
        Ok(())
    }

    /// Reads until `done` says enough or the server closes the connection.
    ///
    /// # Errors
    /// Nothing comes for too long.
    pub async fn read_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        while !done(self) {
            let mut chunk = [0; 64 * 1024];
            let read = tokio::time::timeout(WITHIN, self.socket.read(&mut chunk));
            let silent = || format!("the server is silent after {:?}", self.received);
            let count = read.await.with_context(silent)??;
            if count == 0 {
                return Ok(());
            }
            self.buffer.extend(&chunk[..count]);
            self.take_frames();
        }
        Ok(())
    }

    /// What has come on a stream, as text.
    pub fn text(&self, stream: u32) -> String {
        let bytes = self
            .received
            .get(&stream)
            .map(Vec::as_slice)
            .unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn take_frames(&mut self) {
        while self.buffer.len() >= 8 {
            let word = |at: usize| {
                u32::from_be_bytes(self.buffer[at..at + 4].try_into().expect("four bytes"))
            };
            let (first, second) = (word(0), word(4));
            let length = (second & 0xff_ffff) as usize;
            if self.buffer.len() < 8 + length {
                return;
            }
            let body: Vec<u8> = self.buffer.drain(..8 + length).skip(8).collect();
            if first >> 31 == 0 {
                self.received.entry(first).or_default().extend(&body);
                if second >> 24 & 1 == 1 {
                    self.finished.push(first);
                }
            } else if first & 0xffff == 3 {
                let id = u32::from_be_bytes(body[..4].try_into().expect("four bytes"));
                self.finished.push(id);
            }
        }
    }
}

/// What an exec or attach session gave.
#[derive(Debug)]
pub struct Ended {
    /// Standard output, or all output of a terminal.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The JSON status of the error stream.
    pub status: serde_json::Value,
}

/// The streams of an exec or attach session.
pub struct Session {
    /// The connection.
    pub streaming: Streaming,
    error: u32,
    /// Standard input.
    pub stdin: Option<u32>,
    stdout: u32,
    stderr: Option<u32>,
    /// The terminal's size.
    pub resize: Option<u32>,
}

impl Session {
    /// Opens the session at `url` as kubectl does: error, stdin, stdout, then stderr or,
    /// with a terminal, resize.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn open(url: &str, stdin: bool, tty: bool) -> Result<Session> {
        let mut streaming = Streaming::open(url, "v4.channel.k8s.io").await?;
        let error = streaming.stream(&[("streamtype", "error")]).await?;
        let stdin = match stdin {
            true => Some(streaming.stream(&[("streamtype", "stdin")]).await?),
            false => None,
        };
        let stdout = streaming.stream(&[("streamtype", "stdout")]).await?;
        let (mut stderr, mut resize) = (None, None);
        if tty {
            resize = Some(streaming.stream(&[("streamtype", "resize")]).await?);
        } else {
            stderr = Some(streaming.stream(&[("streamtype", "stderr")]).await?);
        }
        Ok(Session {
            streaming,
            error,
            stdin,
            stdout,
            stderr,
            resize,
        })
    }

    /// Waits until `text` stands in the output.
    ///
    /// # Errors
    /// The session ends without it.
    pub async fn await_output(&mut self, text: &str) -> Result<()> {
        let stdout = self.stdout;
        self.streaming
            .read_until(|now| now.text(stdout).contains(text))
            .await?;
        let seen = self.streaming.text(stdout);
        if seen.contains(text) {
            Ok(())
        } else {
            bail!("no `{text}` in `{seen}`")
        }
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// It does not end, or without a status.
    pub async fn end(mut self) -> Result<Ended> {
        self.streaming.read_until(|_| false).await?;
        let status = self.streaming.text(self.error);
        Ok(Ended {
            stdout: self.streaming.text(self.stdout),
            stderr: self
                .stderr
                .map(|id| self.streaming.text(id))
                .unwrap_or_default(),
            status: serde_json::from_str(&status)
                .with_context(|| format!("no status but `{status}`"))?,
        })
    }
}
