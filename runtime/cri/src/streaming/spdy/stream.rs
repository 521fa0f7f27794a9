//! One SPDY stream, as its two halves.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::frame::{Frame, ResetStatus};
use super::headers::Headers;
use super::window::SendWindow;

/// Most bytes put into one data frame, so that streams share the connection.
const MAX_DATA: usize = 32 * 1024;
/// Received bytes after which the peer is told that they were consumed.
const CONSUMED_STEP: usize = 32 * 1024;

/// What the writer task is asked to send.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame as it is.
    Frame(Frame),
    /// SYN_REPLY without headers for a stream.
    Reply(u32),
}

/// The stream or its connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct StreamClosed;

/// A stream the client opened.
pub struct Stream {
    /// The headers it was opened with.
    pub headers: Headers,
    /// What the client sends.
    pub reader: StreamReader,
    /// What the client receives.
    pub writer: StreamWriter,
}

/// The client's half of a stream.
pub struct StreamReader {
    pub(super) id: u32,
    pub(super) data: mpsc::Receiver<Bytes>,
    pub(super) control: mpsc::UnboundedSender<Outgoing>,
    pub(super) consumed: usize,
}

impl StreamReader {
    /// The next bytes; None once the client has closed its half, reset the stream or
    /// gone away.
    pub async fn data(&mut self) -> Option<Bytes> {
        let bytes = self.data.recv().await?;
        self.consumed += bytes.len();
        if self.consumed >= CONSUMED_STEP {
            let delta = std::mem::take(&mut self.consumed) as u32;
            // A connection that is gone needs no permission.
            for stream in [self.id, 0] {
                let _ = self
                    .control
                    .send(Outgoing::Frame(Frame::WindowUpdate { stream, delta }));
            }
        }
        Some(bytes)
    }
}

/// Our half of a stream. Dropping it without [`StreamWriter::finish`] leaves the half open.
#[derive(Clone)]
pub struct StreamWriter {
    pub(super) id: u32,
    pub(super) frames: mpsc::Sender<Outgoing>,
    pub(super) window: Arc<SendWindow>,
    pub(super) session: Arc<SendWindow>,
}

impl StreamWriter {
    /// Sends all of `bytes`, waiting while the client does not take them.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), StreamClosed> {
        while !bytes.is_empty() {
            let allowed = self.window.take(bytes.len().min(MAX_DATA)).await;
            let taken = self.session.take(allowed).await;
            if taken == 0 {
                return Err(StreamClosed);
            }
            if taken < allowed {
                self.window.give_back(allowed - taken);
            }
            let data = bytes.split_to(taken);
            self.put(Frame::Data {
                stream: self.id,
                fin: false,
                data,
            })
            .await?;
        }
        Ok(())
    }

    /// Closes our half: the client reads end of file.
    pub async fn finish(&self) -> Result<(), StreamClosed> {
        self.put(Frame::Data {
            stream: self.id,
            fin: true,
            data: Bytes::new(),
        })
        .await
    }

    /// Ends the stream in both directions.
    pub async fn reset(&self) -> Result<(), StreamClosed> {
        let status = ResetStatus::Cancel as u32;
        self.put(Frame::RstStream {
            stream: self.id,
            status,
        })
        .await
    }

    async fn put(&self, frame: Frame) -> Result<(), StreamClosed> {
        self.frames
            .send(Outgoing::Frame(frame))
            .await
            .map_err(|_| StreamClosed)
    }
}
