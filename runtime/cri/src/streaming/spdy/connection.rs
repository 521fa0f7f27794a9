//! One SPDY connection: a task that reads frames, a task that writes them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frame::{Frame, FrameError, ResetStatus};
use super::headers::{Deflater, Headers, HeadersError, Inflater};
use super::stream::{Outgoing, Stream, StreamReader, StreamWriter};
use super::window::{INITIAL_WINDOW, SendWindow};

/// Most streams open at once; a port-forward uses two for each connection.
const MAX_STREAMS: usize = 1024;
/// Data frames a stream's reader may lag behind before the connection waits for it.
const READER_LAG: usize = 64;
/// Frames waiting to be written before senders wait.
const WRITER_LAG: usize = 16;

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// The transport failed.
    #[error("cannot {step} the connection")]
    Io {
        /// `read` or `write`.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The client sent what is no frame.
    #[error("the client broke the framing")]
    Frame(#[from] FrameError),
    /// The client sent a header block that cannot be read.
    #[error("the client broke header compression")]
    Headers(#[from] HeadersError),
}

/// The server's end of a connection. Dropping it ends both tasks after what is queued
/// has been written.
pub struct Connection {
    streams: mpsc::Receiver<Stream>,
    frames: mpsc::Sender<Outgoing>,
    gone: CancellationToken,
}

impl Connection {
    /// Serves `io` with two tasks of `tasks`.
    pub fn serve<T>(io: T, tasks: &TaskTracker) -> Result<Connection, SpdyError>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (accept, streams) = mpsc::channel(MAX_STREAMS);
        let (frames, queued) = mpsc::channel(WRITER_LAG);
        let (control, urgent) = mpsc::unbounded_channel();
        let gone = CancellationToken::new();
        let session = Arc::new(SendWindow::new(INITIAL_WINDOW, false));
        let reader = Reader {
            accept,
            control,
            frames: frames.downgrade(),
            open: HashMap::new(),
            inflater: Inflater::new(),
            session,
            initial_window: INITIAL_WINDOW,
            windows_bind: false,
        };
        let deflater = Deflater::new()?;
        let ended = gone.clone();
        tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = reader.run(read) => outcome,
                () = ended.cancelled() => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::debug!(error = %crate::status::chain(&error), "streaming connection ended");
            }
            ended.cancel();
        });
        let ended = gone.clone();
        tasks.spawn(async move {
            // A transport that cannot be written is a client that is gone.
            let _ = write_all(write, queued, urgent, deflater).await;
            ended.cancel();
        });
        Ok(Connection {
            streams,
            frames,
            gone,
        })
    }

    /// The next stream the client opens; None when it is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Is done once the client is gone.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Says GOAWAY behind everything already queued.
    pub async fn close(self) {
        let frame = Frame::GoAway {
            last_good: 0,
            status: 0,
        };
        // A client that is gone needs no good-bye.
        let _ = self.frames.send(Outgoing::Frame(frame)).await;
    }
}

/// A stream as the reader knows it.
struct Open {
    /// None: the client has closed its half.
    data: Option<mpsc::Sender<Bytes>>,
    window: Arc<SendWindow>,
}

struct Reader {
    accept: mpsc::Sender<Stream>,
    control: mpsc::UnboundedSender<Outgoing>,
    /// Weak: the writer ends when the last stream and the connection are dropped.
    frames: mpsc::WeakSender<Outgoing>,
    open: HashMap<u32, Open>,
    inflater: Inflater,
    session: Arc<SendWindow>,
    initial_window: i64,
    windows_bind: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.session.close();
        self.open.values().for_each(|open| open.window.close());
    }
}

impl Reader {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) -> Result<(), SpdyError> {
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        loop {
            while let Some(frame) = Frame::decode(&mut buffer)? {
                if matches!(frame, Frame::GoAway { .. }) {
                    return Ok(());
                }
                self.take(frame).await?;
            }
            let count = read
                .read_buf(&mut buffer)
                .await
                .map_err(|source| SpdyError::Io {
                    step: "read",
                    source,
                })?;
            if count == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), SpdyError> {
        match frame {
            Frame::Data { stream, fin, data } => self.data(stream, fin, data).await,
            Frame::SynStream {
                stream, fin, block, ..
            } => {
                let headers = self.inflater.headers(&block)?;
                self.open(stream, fin, headers);
            }
            // Late headers mean nothing to these protocols, but they are part of the
            // one compressed stream.
            Frame::Headers { block, stream, fin } => {
                self.inflater.headers(&block)?;
                if fin {
                    self.data(stream, true, Bytes::new()).await;
                }
            }
            Frame::SynReply { block, .. } => {
                self.inflater.headers(&block)?;
            }
            Frame::RstStream { stream, .. } => {
                if let Some(open) = self.open.remove(&stream) {
                    open.window.close();
                }
            }
            // Even pings would be answers to ours, of which there are none.
            Frame::Ping(id) if id % 2 == 1 => self.answer(Frame::Ping(id)),
            Frame::WindowUpdate { stream, delta } => self.window_update(stream, delta),
            Frame::Settings {
                initial_window: Some(window),
            } => self.settings(window),
            Frame::Ping(_) | Frame::Settings { .. } | Frame::GoAway { .. } | Frame::Unknown(_) => {}
        }
        Ok(())
    }

    async fn data(&mut self, stream: u32, fin: bool, data: Bytes) {
        let Some(open) = self.open.get_mut(&stream) else {
            if !data.is_empty() {
                self.reset(stream, ResetStatus::InvalidStream);
            }
            return;
        };
        if let Some(sender) = &open.data
            && !data.is_empty()
        {
            // A reader that was dropped wants nothing more of this stream.
            let _ = sender.send(data).await;
        }
        if fin {
            open.data = None;
        }
    }

    fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        let (Some(frames), true) = (self.frames.upgrade(), self.open.len() < MAX_STREAMS) else {
            return self.reset(id, ResetStatus::RefusedStream);
        };
        if id.is_multiple_of(2) || self.open.contains_key(&id) {
            return self.reset(id, ResetStatus::ProtocolError);
        }
        let (sender, data) = mpsc::channel(READER_LAG);
        let window = Arc::new(SendWindow::new(self.initial_window, self.windows_bind));
        let stream = Stream {
            headers,
            reader: StreamReader {
                id,
                data,
                control: self.control.clone(),
                consumed: 0,
            },
            writer: StreamWriter {
                id,
                frames,
                window: window.clone(),
                session: self.session.clone(),
            },
        };
        // Accepted before it is served: the client waits for the reply, in any order.
        let _ = self.control.send(Outgoing::Reply(id));
        self.open.insert(
            id,
            Open {
                data: (!fin).then_some(sender),
                window,
            },
        );
        if self.accept.try_send(stream).is_err() {
            self.open.remove(&id);
            self.reset(id, ResetStatus::RefusedStream);
        }
    }

    fn window_update(&mut self, stream: u32, delta: u32) {
        self.windows_bind = true;
        if stream == 0 {
            self.session.update(i64::from(delta));
        } else if let Some(open) = self.open.get(&stream) {
            open.window.update(i64::from(delta));
        }
    }

    fn settings(&mut self, window: u32) {
        let difference = i64::from(window) - self.initial_window;
        self.initial_window = i64::from(window);
        self.windows_bind = true;
        self.open
            .values()
            .for_each(|open| open.window.update(difference));
    }

    fn reset(&self, stream: u32, status: ResetStatus) {
        self.answer(Frame::RstStream {
            stream,
            status: status as u32,
        });
    }

    fn answer(&self, frame: Frame) {
        // The writer ends only with the transport, which this reader will see too.
        let _ = self.control.send(Outgoing::Frame(frame));
    }
}

/// Writes until no one can send any more; what is urgent goes first, so a reply
/// precedes the data of its stream.
async fn write_all(
    mut write: impl AsyncWrite + Unpin,
    mut queued: mpsc::Receiver<Outgoing>,
    mut urgent: mpsc::UnboundedReceiver<Outgoing>,
    mut deflater: Deflater,
) -> Result<(), SpdyError> {
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    loop {
        // Both receives are cancel-safe: nothing is lost when the other arm wins.
        let next = tokio::select! {
            biased;
            Some(next) = urgent.recv() => next,
            next = queued.recv() => match next {
                Some(next) => next,
                None => break,
            },
        };
        buffer.clear();
        encode(next, &mut deflater, &mut buffer)?;
        while let Ok(next) = urgent.try_recv() {
            encode(next, &mut deflater, &mut buffer)?;
        }
        write
            .write_all(&buffer)
            .await
            .map_err(|source| SpdyError::Io {
                step: "write",
                source,
            })?;
    }
    write.shutdown().await.map_err(|source| SpdyError::Io {
        step: "close",
        source,
    })
}

fn encode(next: Outgoing, deflater: &mut Deflater, buffer: &mut BytesMut) -> Result<(), SpdyError> {
    let frame = match next {
        Outgoing::Frame(frame) => frame,
        Outgoing::Reply(stream) => {
            let block = deflater.block(&Headers::new())?;
            Frame::SynReply {
                stream,
                fin: false,
                block,
            }
        }
    };
    frame.encode(buffer);
    Ok(())
}

#[cfg(test)]
mod tests;
