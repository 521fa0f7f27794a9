//! Reads ahead on a thread of its own, so that decompression and writing use two cores.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;
/// Chunks read ahead at most.
const DEPTH: usize = 8;

/// The reading side of [`read_ahead`].
pub(crate) struct Ahead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    /// Used chunks go back, so that their memory is not mapped anew each time.
    used: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

/// Runs `work` with a reader of `source`, which a second thread reads meanwhile.
pub(crate) fn read_ahead<T>(
    source: &mut (impl Read + Send),
    work: impl FnOnce(&mut Ahead) -> T,
) -> T {
    let (filled, chunks) = sync_channel(DEPTH);
    let (used, spare) = sync_channel(DEPTH + 2);
    std::thread::scope(|scope| {
        scope.spawn(move || fill(source, &filled, &spare));
        let mut ahead = Ahead {
            chunks,
            used,
            current: Vec::new(),
            position: 0,
        };
        // The reader's end lets the other thread stop, too.
        work(&mut ahead)
    })
}

fn fill(
    source: &mut impl Read,
    filled: &SyncSender<io::Result<Vec<u8>>>,
    spare: &Receiver<Vec<u8>>,
) {
    loop {
        let mut chunk = spare.try_recv().unwrap_or_default();
        chunk.clear();
        let read = source.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        let end = !matches!(read, Ok(1..));
        let result = match read {
            Ok(0) => return,
            // What came before an error is handed over first.
            Err(error) if chunk.is_empty() => Err(error),
            Err(error) => {
                if filled.send(Ok(chunk)).is_ok() {
                    // A reader that is gone needs no error.
                    let _ = filled.send(Err(error));
                }
                return;
            }
            Ok(_) => Ok(chunk),
        };
        if filled.send(result).is_err() || end {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            let Ok(next) = self.chunks.recv() else {
                return Ok(0);
            };
            let used = std::mem::replace(&mut self.current, next?);
            self.position = 0;
            // When the other thread is gone, nobody needs it.
            let _ = self.used.try_send(used);
        }
        let rest = &self.current[self.position..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.position += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_in_order() {
        let data: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let mut read = Vec::new();
        read_ahead(&mut &data[..], |ahead| ahead.read_to_end(&mut read)).unwrap();
        assert_eq!(read, data);
    }

    #[test]
    fn an_error_comes_after_what_was_before_it() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        let mut source = (&b"before"[..]).chain(Failing);
        let mut read = Vec::new();
        let error = read_ahead(&mut source, |ahead| ahead.read_to_end(&mut read)).unwrap_err();
        assert_eq!(
            (error.kind(), &read[..]),
            (io::ErrorKind::InvalidData, &b"before"[..])
        );
    }

    #[test]
    fn a_reader_that_stops_early_stops_both() {
        let first = read_ahead(&mut io::repeat(7), |ahead| {
            let mut byte = [0];
            ahead.read_exact(&mut byte).map(|()| byte[0])
        });
        assert_eq!(first.unwrap(), 7);
    }
}
