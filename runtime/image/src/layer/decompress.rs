//! Compressed layers: gzip, zstd or neither, told apart by their first bytes.
//!
//! The media type is not believed: registries in use serve gzip under either name.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::config::Limits;
use crate::digest::{Digest, Hasher};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// zstd frames beginning with a skippable one: 0x184D2A50 to …5F, little endian.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// 128 MiB, zstd's own default bound on a frame's window.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A layer's uncompressed bytes: hashed and bounded.
pub(crate) struct Uncompressed<'a> {
    decoder: Box<dyn Read + Send + 'a>,
    hasher: Hasher,
    read: u64,
    bound: u64,
}

impl<'a> Uncompressed<'a> {
    /// Reads `compressed`, of `size` bytes; the result's hash is of `diff_id`'s algorithm.
    pub fn new(
        mut compressed: impl BufRead + Send + 'a,
        size: u64,
        diff_id: &Digest,
        limits: &Limits,
    ) -> io::Result<Self> {
        let start = compressed.fill_buf()?;
        let decoder: Box<dyn Read + Send + 'a> = if start.starts_with(GZIP_MAGIC) {
            Box::new(MultiGzDecoder::new(compressed))
        } else if start.starts_with(ZSTD_MAGIC) || start.get(1..4) == Some(ZSTD_SKIPPABLE) {
            let mut decoder = zstd::Decoder::with_buffer(compressed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        } else {
            Box::new(compressed)
        };
        let by_ratio = size.saturating_mul(limits.ratio).max(limits.ratio_free);
        let bound = by_ratio.min(limits.layer_bytes);
        Ok(Self {
            decoder,
            hasher: diff_id.hasher(),
            read: 0,
            bound,
        })
    }

    /// The digest of everything read, and its length.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.read)
    }
}

impl Read for Uncompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.read += read as u64;
        if self.read > self.bound {
            let text = format!("the layer unpacks to more than {} bytes", self.bound);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
