//! Bytes between SPDY streams and descriptors.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::spdy::{StreamReader, StreamWriter};

/// How long output may still come after its process has ended: a child of it may hold the
/// pipe for ever.
const REST_WITHIN: Duration = Duration::from_millis(200);
/// Bytes read at once.
const CHUNK: usize = 32 * 1024;

/// What `read` gives, or nothing once the process has `ended` and a while has passed. A
/// slow client still gets everything: only waiting for more is bounded.
async fn unless_idle<T: Default>(read: impl Future<Output = T>, ended: &CancellationToken) -> T {
    let mut read = std::pin::pin!(read);
    tokio::select! {
        biased;
        got = &mut read => return got,
        () = ended.cancelled() => {}
    }
    tokio::time::timeout(REST_WITHIN, read)
        .await
        .unwrap_or_default()
}

/// What `from` gives until its end, then the end itself. Returns early when the client
/// takes no more.
pub async fn to_client(
    mut from: impl AsyncRead + Unpin,
    to: &StreamWriter,
    ended: &CancellationToken,
) {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        // A pipe or socket that fails has ended.
        let read = async { from.read_buf(&mut buffer).await.unwrap_or(0) };
        let count = unless_idle(read, ended).await;
        if count == 0 || to.send(buffer.split().freeze()).await.is_err() {
            break;
        }
    }
    let _ = to.finish().await;
}

/// What the client sends until it closes its half, then closes `to`.
pub async fn from_client(from: &mut StreamReader, mut to: impl AsyncWrite + Unpin) {
    while let Some(bytes) = from.data().await {
        if to.write_all(&bytes).await.is_err() {
            // Nobody reads any more; the client may still send, to no one.
            while from.data().await.is_some() {}
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// The master of a terminal, behind the reactor.
pub struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    /// Takes over `master`.
    #[expect(
        deprecated,
        reason = "the successor is unsafe, for which there is no need: the descriptor is owned"
    )]
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Terminal(AsyncFd::new(master)?))
    }

    /// The next output; empty at the end, which a terminal tells by an error (EIO), or
    /// when nothing comes any more once the process has `ended`.
    pub async fn read(&self, ended: &CancellationToken) -> Bytes {
        unless_idle(self.read_some(), ended).await
    }

    async fn read_some(&self) -> Bytes {
        let mut buffer = vec![0; CHUNK];
        let read = self.0.async_io(tokio::io::Interest::READABLE, |master| {
            Ok(rustix::io::read(master, &mut buffer)?)
        });
        let count = read.await.unwrap_or(0);
        buffer.truncate(count);
        buffer.into()
    }

    /// Writes all of `bytes`.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.async_io(tokio::io::Interest::WRITABLE, |master| {
                Ok(rustix::io::write(master, bytes)?)
            });
            bytes = &bytes[written.await?..];
        }
        Ok(())
    }
}
