//! SPDY/3 name/value header blocks: length-prefixed pairs behind one zlib stream
//! per direction, primed with the dictionary of the draft (section 2.6.10).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Names the dictionary holds, each behind its 32-bit length.
const NAMES: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// What follows the names, without lengths.
const TAIL: &str = concat!(
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505",
    "203 Non-Authoritative Information",
    "204 No Content",
    "301 Moved Permanently",
    "400 Bad Request",
    "401 Unauthorized",
    "403 Forbidden",
    "404 Not Found",
    "500 Internal Server Error",
    "501 Not Implemented",
    "503 Service Unavailable",
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00",
    " Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT",
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,",
    "text/plain,text/javascript,public",
    "privatemax-age=gzip,deflate,sdch",
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

/// Largest inflated header block accepted, in bytes.
const MAX_BLOCK: usize = 64 * 1024;

/// Why a header block cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    /// The zlib stream is broken.
    #[error("cannot inflate the header block")]
    Inflate(#[source] flate2::DecompressError),
    /// The zlib stream cannot be continued.
    #[error("cannot deflate the header block")]
    Deflate(#[source] flate2::CompressError),
    /// More than [`MAX_BLOCK`] bytes.
    #[error("header block too long")]
    TooLong,
    /// Lengths that do not add up, or bytes that are not text.
    #[error("malformed header block")]
    Malformed,
}

/// Names (lower case) and values, in order.
pub type Headers = Vec<(String, String)>;

/// The value of the header `name`.
pub fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let found = headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::with_capacity(1423);
    for name in NAMES {
        dictionary.put_u32(name.len() as u32);
        dictionary.put_slice(name.as_bytes());
    }
    dictionary.put_slice(TAIL.as_bytes());
    dictionary
}

/// Deflates the header blocks of one direction of one connection.
pub struct Deflater(Compress);

impl Deflater {
    /// A new stream, primed with the dictionary.
    pub fn new() -> Result<Self, HeadersError> {
        let mut stream = Compress::new(Compression::default(), true);
        stream
            .set_dictionary(&dictionary())
            .map_err(HeadersError::Deflate)?;
        Ok(Deflater(stream))
    }

    /// The compressed block of `headers`. Blocks must be sent in the order they are made.
    pub fn block(&mut self, headers: &Headers) -> Result<Bytes, HeadersError> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let taken = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&plain[taken..], &mut out, FlushCompress::Sync)
                .map_err(HeadersError::Deflate)?;
            let taken = (self.0.total_in() - start) as usize;
            if taken == plain.len() && out.len() < out.capacity() {
                return Ok(out.into());
            }
            out.reserve(256);
        }
    }
}

/// Inflates the header blocks of one direction of one connection.
pub struct Inflater {
    stream: Decompress,
    primed: bool,
}

impl Inflater {
    /// A new stream; the dictionary is given when the stream asks for it.
    pub fn new() -> Self {
        Inflater {
            stream: Decompress::new(true),
            primed: false,
        }
    }

    /// The headers of `block`. Blocks must be given in the order they arrive.
    pub fn headers(&mut self, block: &[u8]) -> Result<Headers, HeadersError> {
        let mut plain = Vec::with_capacity(1024);
        let start = self.stream.total_in();
        loop {
            let taken = (self.stream.total_in() - start) as usize;
            let step =
                self.stream
                    .decompress_vec(&block[taken..], &mut plain, FlushDecompress::Sync);
            match step {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() && !self.primed => {
                    self.stream
                        .set_dictionary(&dictionary())
                        .map_err(HeadersError::Inflate)?;
                    self.primed = true;
                    continue;
                }
                Err(error) => return Err(HeadersError::Inflate(error)),
            }
            let taken = (self.stream.total_in() - start) as usize;
            if taken == block.len() && plain.len() < plain.capacity() {
                break;
            }
            if plain.len() >= MAX_BLOCK {
                return Err(HeadersError::TooLong);
            }
            plain.reserve(4096);
        }
        parse(plain.into())
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, HeadersError> {
    let count = take_u32(&mut plain)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = take_text(&mut plain)?;
        headers.push((name.to_ascii_lowercase(), take_text(&mut plain)?));
    }
    Ok(headers)
}

fn take_u32(plain: &mut Bytes) -> Result<u32, HeadersError> {
    if plain.len() < 4 {
        return Err(HeadersError::Malformed);
    }
    Ok(plain.get_u32())
}

fn take_text(plain: &mut Bytes) -> Result<String, HeadersError> {
    let length = take_u32(plain)? as usize;
    if plain.len() < length {
        return Err(HeadersError::Malformed);
    }
    let bytes = BytesMut::from(plain.split_to(length));
    String::from_utf8(bytes.to_vec()).map_err(|_| HeadersError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_drafts() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        // Adler-32 of the dictionary: what a zlib stream names it by (RFC 1950).
        let (mut low, mut high) = (1u32, 0u32);
        for byte in dictionary {
            low = (low + u32::from(byte)) % 65521;
            high = (high + low) % 65521;
        }
        assert_eq!(high << 16 | low, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_share_one_stream() {
        let mut deflater = Deflater::new().unwrap();
        let mut inflater = Inflater::new();
        for kind in ["error", "stdin", "stdout", "resize"] {
            let headers = vec![
                ("streamtype".to_owned(), kind.to_owned()),
                ("port".to_owned(), "8080".repeat(400)),
            ];
            let block = deflater.block(&headers).unwrap();
            assert_eq!(inflater.headers(&block).unwrap(), headers);
        }
        let empty = deflater.block(&Headers::new()).unwrap();
        assert_eq!(inflater.headers(&empty).unwrap(), Headers::new());
    }

    #[test]
    fn names_are_found_in_any_case() {
        let headers = vec![("streamtype".to_owned(), "data".to_owned())];
        assert_eq!(value(&headers, "streamType"), Some("data"));
        assert_eq!(value(&headers, "port"), None);
    }

    #[test]
    fn broken_blocks_are_refused() {
        assert!(matches!(
            Inflater::new().headers(b"nonsense"),
            Err(HeadersError::Inflate(_))
        ));
        assert!(parse(Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 9, b'a'])).is_err());
        let long = vec![("a".to_owned(), "b".repeat(2 * MAX_BLOCK))];
        let block = Deflater::new().unwrap().block(&long).unwrap();
        assert!(matches!(
            Inflater::new().headers(&block),
            Err(HeadersError::TooLong)
        ));
    }
}
