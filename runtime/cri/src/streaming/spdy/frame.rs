//! SPDY/3.1 frames: bytes to typed frames and back (SPDY protocol draft 3.1,
//! section 2). Header blocks stay compressed here; see `headers`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// SPDY version carried in control frames; 3.1 says 3 on the wire.
const VERSION: u16 = 3;
/// Longest frame body accepted, in bytes. The format allows 16 MiB; peers of the
/// Kubernetes streaming protocols send at most 64 KiB at once.
pub const MAX_FRAME: usize = 1 << 20;

const FLAG_FIN: u8 = 0x01;
const FLAG_UNIDIRECTIONAL: u8 = 0x02;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const SETTINGS_INITIAL_WINDOW: u32 = 7;

/// RST_STREAM status codes used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ResetStatus {
    /// PROTOCOL_ERROR.
    ProtocolError = 1,
    /// INVALID_STREAM: a frame for a stream that is not open.
    InvalidStream = 2,
    /// REFUSED_STREAM: nothing was done for the stream.
    RefusedStream = 3,
    /// CANCEL: the stream is not wanted any more.
    Cancel = 5,
}

/// One frame. Identifiers are 31 bits wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// Whether the sender closes its half.
        fin: bool,
        /// The bytes, at most 2^24-1.
        data: Bytes,
    },
    /// Opens a stream.
    SynStream {
        /// The new stream: odd from a client, even from a server.
        stream: u32,
        /// Whether the sender closes its half at once.
        fin: bool,
        /// Whether the receiver's half is closed from the start.
        unidirectional: bool,
        /// Compressed header block.
        block: Bytes,
    },
    /// Accepts a stream.
    SynReply {
        /// The accepted stream.
        stream: u32,
        /// Whether the sender closes its half at once.
        fin: bool,
        /// Compressed header block.
        block: Bytes,
    },
    /// Ends a stream abnormally.
    RstStream {
        /// The stream.
        stream: u32,
        /// See [`ResetStatus`].
        status: u32,
    },
    /// Settings, of which only the initial window matters here.
    Settings {
        /// SETTINGS_INITIAL_WINDOW_SIZE in bytes, when given.
        initial_window: Option<u32>,
    },
    /// A ping, to be echoed.
    Ping(u32),
    /// No more streams will be accepted.
    GoAway {
        /// The last stream that was accepted.
        last_good: u32,
        /// 0 is OK.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        stream: u32,
        /// Whether the sender closes its half.
        fin: bool,
        /// Compressed header block.
        block: Bytes,
    },
    /// Permission to send more.
    WindowUpdate {
        /// The stream; 0 is the connection.
        stream: u32,
        /// Bytes added to the window.
        delta: u32,
    },
    /// A control frame of a type this version does not know; ignored by rule.
    Unknown(u16),
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Control frames carry version 3.
    #[error("control frame of SPDY version {0}")]
    Version(u16),
    /// The body is longer than [`MAX_FRAME`].
    #[error("frame of {0} bytes")]
    TooLong(usize),
    /// The body does not fit its type.
    #[error("malformed frame of type {0}")]
    Malformed(u16),
}

impl Frame {
    /// Takes one whole frame from the front of `buffer`; None when it is not whole yet.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(head) = buffer.first_chunk::<8>() else {
            return Ok(None);
        };
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let second = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let flags = (second >> 24) as u8;
        let length = (second & 0x00ff_ffff) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        buffer.advance(8);
        let body = buffer.split_to(length).freeze();
        if first >> 31 == 0 {
            return Ok(Some(Frame::Data {
                stream: first,
                fin: flags & FLAG_FIN != 0,
                data: body,
            }));
        }
        let version = ((first >> 16) & 0x7fff) as u16;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        control((first & 0xffff) as u16, flags, body).map(Some)
    }

    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Frame::Data { stream, fin, data } => {
                out.put_u32(stream & 0x7fff_ffff);
                put_flags_and_length(out, fin_flag(*fin), data.len());
                out.put_slice(data);
            }
            Frame::SynStream {
                stream,
                fin,
                unidirectional,
                block,
            } => {
                let flags = fin_flag(*fin)
                    | if *unidirectional {
                        FLAG_UNIDIRECTIONAL
                    } else {
                        0
                    };
                put_head(out, SYN_STREAM, flags, 10 + block.len());
                out.put_u32(*stream);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(block);
            }
            Frame::SynReply { stream, fin, block } => {
                put_head(out, SYN_REPLY, fin_flag(*fin), 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(block);
            }
            Frame::Headers { stream, fin, block } => {
                put_head(out, HEADERS, fin_flag(*fin), 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(block);
            }
            Frame::RstStream { stream, status } => put_pair(out, RST_STREAM, *stream, *status),
            Frame::GoAway { last_good, status } => put_pair(out, GOAWAY, *last_good, *status),
            Frame::WindowUpdate { stream, delta } => put_pair(out, WINDOW_UPDATE, *stream, *delta),
            Frame::Ping(id) => {
                put_head(out, PING, 0, 4);
                out.put_u32(*id);
            }
            Frame::Settings { initial_window } => put_settings(out, *initial_window),
            Frame::Unknown(kind) => put_head(out, *kind, 0, 0),
        }
    }
}

fn control(kind: u16, flags: u8, mut body: Bytes) -> Result<Frame, FrameError> {
    let needed = match kind {
        SYN_STREAM => 10,
        RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
        SYN_REPLY | HEADERS | PING | SETTINGS => 4,
        _ => return Ok(Frame::Unknown(kind)),
    };
    if body.len() < needed {
        return Err(FrameError::Malformed(kind));
    }
    let fin = flags & FLAG_FIN != 0;
    let first = body.get_u32();
    let stream = first & 0x7fff_ffff;
    Ok(match kind {
        SYN_STREAM => {
            body.advance(6);
            let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
            Frame::SynStream {
                stream,
                fin,
                unidirectional,
                block: body,
            }
        }
        SYN_REPLY => Frame::SynReply {
            stream,
            fin,
            block: body,
        },
        HEADERS => Frame::Headers {
            stream,
            fin,
            block: body,
        },
        RST_STREAM => Frame::RstStream {
            stream,
            status: body.get_u32(),
        },
        GOAWAY => Frame::GoAway {
            last_good: stream,
            status: body.get_u32(),
        },
        WINDOW_UPDATE => Frame::WindowUpdate {
            stream,
            delta: body.get_u32() & 0x7fff_ffff,
        },
        PING => Frame::Ping(first),
        _ => settings(first, body)?,
    })
}

fn settings(count: u32, mut body: Bytes) -> Result<Frame, FrameError> {
    let mut initial_window = None;
    for _ in 0..count {
        if body.len() < 8 {
            return Err(FrameError::Malformed(SETTINGS));
        }
        let (id, value) = (body.get_u32() & 0x00ff_ffff, body.get_u32());
        if id == SETTINGS_INITIAL_WINDOW {
            initial_window = Some(value);
        }
    }
    Ok(Frame::Settings { initial_window })
}

fn put_settings(out: &mut BytesMut, initial_window: Option<u32>) {
    let entries = u32::from(initial_window.is_some());
    put_head(out, SETTINGS, 0, 4 + 8 * entries as usize);
    out.put_u32(entries);
    if let Some(window) = initial_window {
        out.put_u32(SETTINGS_INITIAL_WINDOW);
        out.put_u32(window);
    }
}

fn fin_flag(fin: bool) -> u8 {
    if fin { FLAG_FIN } else { 0 }
}

fn put_pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    put_head(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

fn put_head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_flags_and_length(out, flags, length);
}

fn put_flags_and_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | (length as u32 & 0x00ff_ffff));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_survives_the_wire() {
        let block = Bytes::from_static(b"zzz");
        let frames = [
            Frame::Data {
                stream: 3,
                fin: true,
                data: Bytes::from_static(b"hello"),
            },
            Frame::SynStream {
                stream: 1,
                fin: false,
                unidirectional: true,
                block: block.clone(),
            },
            Frame::SynReply {
                stream: 1,
                fin: true,
                block: block.clone(),
            },
            Frame::Headers {
                stream: 1,
                fin: false,
                block,
            },
            Frame::RstStream {
                stream: 5,
                status: ResetStatus::Cancel as u32,
            },
            Frame::Settings {
                initial_window: Some(1 << 20),
            },
            Frame::Settings {
                initial_window: None,
            },
            Frame::Ping(7),
            Frame::GoAway {
                last_good: 9,
                status: 0,
            },
            Frame::WindowUpdate {
                stream: 0,
                delta: 4096,
            },
            Frame::Unknown(10),
        ];
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire));
        let mut part = BytesMut::new();
        let mut seen = Vec::new();
        for byte in wire {
            part.put_u8(byte);
            seen.extend(Frame::decode(&mut part).unwrap());
        }
        assert_eq!(seen, frames);
        assert!(part.is_empty());
    }

    #[test]
    fn the_bytes_are_those_of_the_draft() {
        let mut wire = BytesMut::new();
        Frame::RstStream {
            stream: 1,
            status: 3,
        }
        .encode(&mut wire);
        assert_eq!(
            &wire[..],
            [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 3]
        );
        wire.clear();
        Frame::Data {
            stream: 2,
            fin: true,
            data: Bytes::from_static(b"a"),
        }
        .encode(&mut wire);
        assert_eq!(&wire[..], [0, 0, 0, 2, 1, 0, 0, 1, b'a']);
    }

    #[test]
    fn malformed_frames_are_refused() {
        let cases: [(&[u8], FrameError); 4] = [
            (&[0x80, 2, 0, 1, 0, 0, 0, 0], FrameError::Version(2)),
            (
                &[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1],
                FrameError::Malformed(1),
            ),
            (
                &[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 9],
                FrameError::Malformed(4),
            ),
            (
                &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff],
                FrameError::TooLong(0x00ff_ffff),
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(Frame::decode(&mut BytesMut::from(bytes)), Err(error));
        }
    }
}
