//! The CRI log format: `<RFC 3339 time> <stdout|stderr> <P|F> <content>\n`.
//!
//! `F` ends a line of the container's; `P` marks a piece which the next entry of the stream continues: a line is
//! cut after [`LINE_MAX`] bytes, and the rest of an unfinished last line is a `P` too.

use crate::time::{RFC3339_LEN, rfc3339_nano};

/// Longest content of one entry, in bytes; what the kubelet and other runtimes use.
pub const LINE_MAX: usize = 16 * 1024;
/// Length of everything before the content.
pub const PREFIX_LEN: usize = RFC3339_LEN + 10;

/// Which of the container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, and all output of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// 0 or 1.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// One entry to write: the content is `held` followed by `fresh`.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The line ends here.
    pub full: bool,
    /// What earlier chunks left over.
    pub held: &'a [u8],
    /// What this chunk adds, without the line's end.
    pub fresh: &'a [u8],
}

/// The start of every entry of one chunk; `full` is patched per entry.
pub fn prefix(time: i64, stream: Stream) -> [u8; PREFIX_LEN] {
    let mut text = [b' '; PREFIX_LEN];
    text[..RFC3339_LEN].copy_from_slice(&rfc3339_nano(time));
    let name: &[u8; 6] = match stream {
        Stream::Stdout => b"stdout",
        Stream::Stderr => b"stderr",
    };
    text[RFC3339_LEN + 1..RFC3339_LEN + 7].copy_from_slice(name);
    text[PREFIX_LEN - 2] = b'F';
    text
}

/// Splits `chunk` into entries, giving each to `emit`; what remains unfinished is left in `held`, which never grows
/// beyond [`LINE_MAX`].
pub fn split(held: &mut Vec<u8>, mut chunk: &[u8], mut emit: impl FnMut(&Entry<'_>)) {
    while !chunk.is_empty() {
        let room = LINE_MAX - held.len();
        let seen = &chunk[..chunk.len().min(room + 1)];
        match memchr::memchr(b'\n', seen) {
            Some(end) => {
                emit(&Entry {
                    full: true,
                    held,
                    fresh: &chunk[..end],
                });
                chunk = &chunk[end + 1..];
            }
            // The line's end may be the very next byte: cut only when more content is there.
            None if seen.len() > room => {
                emit(&Entry {
                    full: false,
                    held,
                    fresh: &chunk[..room],
                });
                chunk = &chunk[room..];
            }
            None => {
                held.extend_from_slice(chunk);
                return;
            }
        }
        held.clear();
    }
}
