//! A reader of tar archives: ustar, PAX and GNU long names, each field bounded.
//!
//! The format is POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header", and GNU
//! tar's manual, "Basic Tar Format". PAX values win over GNU ones, and these over the header. Global
//! extended headers are passed over, as the common engines do. Sparse members are refused.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Bytes of one extended header or long name.
const MAX_EXTENSION: u64 = 1 << 20;
/// PATH_MAX of Linux, without its terminator.
const MAX_PATH: usize = 4095;
/// Extended headers in a row before one member; two long names and one PAX header are usual.
const MAX_EXTENSIONS: usize = 8;

/// What kind of file a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member's header, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Bytes of data that follow; 0 for all but regular files.
    pub size: u64,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    /// `SCHILY.xattr.` records: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream failed or ended early.
    #[error("cannot read the layer's archive: {0}")]
    Read(io::Error),
    /// A header's checksum is wrong.
    #[error("archive header has a wrong checksum")]
    Checksum,
    /// A numeric field is not a number or too great.
    #[error("archive header field `{0}` is not a number in range")]
    Number(&'static str),
    /// An extended header is malformed.
    #[error("extended archive header is malformed")]
    Extension,
    /// An extended header or a path is too long.
    #[error("archive header `{0}` is too long")]
    TooLong(&'static str),
    /// The member is of a type that layers do not have.
    #[error("archive member `{path}` has unsupported type `{kind}`")]
    Type {
        /// The member.
        path: String,
        /// Its type flag.
        kind: char,
    },
}

/// Values of extended headers for the next member.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

/// A streaming reader; between two calls of [`Archive::next`] the member's data can be read.
pub(crate) struct Archive<R> {
    reader: R,
    /// Data bytes of the current member not read yet.
    remaining: u64,
    /// Zero bytes after the data, up to the block's end.
    padding: u64,
    ended: bool,
}

impl<R: Read> Archive<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            remaining: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next member, or `None` at the archive's end.
    pub fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut extension = Extension::default();
        for _ in 0..MAX_EXTENSIONS {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(&header[124..136], "size")?;
            let bounded = |name| {
                if size > MAX_EXTENSION {
                    Err(ArchiveError::TooLong(name))
                } else {
                    Ok(())
                }
            };
            match header[156] {
                b'g' => {
                    bounded("global extended header")?;
                    self.expect_data(size);
                }
                b'x' => {
                    bounded("extended header")?;
                    let records = self.whole(size)?;
                    extension.pax = parse_pax(&records)?;
                }
                b'L' => {
                    bounded("long name")?;
                    extension.path = Some(until_nul(&self.whole(size)?).to_vec());
                }
                b'K' => {
                    bounded("long link name")?;
                    extension.link = Some(until_nul(&self.whole(size)?).to_vec());
                }
                _ => return self.member(&header, extension).map(Some),
            }
        }
        Err(ArchiveError::TooLong("chain of extended headers"))
    }

    /// Reads what follows the archive's end, up to the end of the stream, so that it is hashed too.
    pub fn drain(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; 64 << 10];
        while self.reader.read(&mut buffer).map_err(ArchiveError::Read)? > 0 {}
        Ok(())
    }

    fn member(
        &mut self,
        header: &[u8; BLOCK],
        extension: Extension,
    ) -> Result<Member, ArchiveError> {
        let pax = extension.pax;
        let path = pax
            .path
            .or(extension.path)
            .unwrap_or_else(|| header_path(header));
        let link = pax
            .link
            .or(extension.link)
            .unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(ArchiveError::TooLong("path"));
        }
        let kind = kind(header[156], &path);
        let unsupported = |kind: u8| ArchiveError::Type {
            path: String::from_utf8_lossy(&path).into_owned(),
            kind: char::from(kind),
        };
        let kind = kind.ok_or_else(|| unsupported(header[156]))?;
        if pax.sparse {
            return Err(unsupported(b'S'));
        }
        let size = match pax.size {
            Some(size) => size,
            None => number(&header[124..136], "size")?,
        };
        let size = if kind == Kind::Regular { size } else { 0 };
        self.expect_data(size);
        let either =
            |pax: Option<u64>, field: &[u8], name| pax.map_or_else(|| number(field, name), Ok);
        Ok(Member {
            kind,
            size,
            mode: u32::try_from(number(&header[100..108], "mode")? & 0o7777).unwrap_or(0),
            uid: either(pax.uid, &header[108..116], "uid")?,
            gid: either(pax.gid, &header[116..124], "gid")?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => (signed(&header[136..148], "mtime")?, 0),
            },
            device: if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                (
                    small(&header[329..337], "devmajor")?,
                    small(&header[337..345], "devminor")?,
                )
            } else {
                (0, 0)
            },
            xattrs: pax.xattrs,
            path,
            link,
        })
    }

    /// Reads one header block; `None` at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        self.skip_data()?;
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            self.ended = true;
            return Ok(None);
        }
        if block.iter().all(|b| *b == 0) {
            // The end is two zero blocks; some writers leave out the second.
            self.ended = true;
            return Ok(None);
        }
        verify_checksum(&block)?;
        Ok(Some(block))
    }

    /// Fills a block; `false` when the stream ends exactly before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, ArchiveError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self
                .reader
                .read(&mut block[filled..])
                .map_err(ArchiveError::Read)?
            {
                0 if filled == 0 => return Ok(false),
                0 => return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into())),
                read => filled += read,
            }
        }
        Ok(true)
    }

    fn expect_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn whole(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        self.expect_data(size);
        let mut data = Vec::new();
        self.read_to_end(&mut data).map_err(ArchiveError::Read)?;
        Ok(data)
    }

    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let length = self.remaining.saturating_add(self.padding);
        self.remaining = 0;
        self.padding = 0;
        let skipped = io::copy(&mut (&mut self.reader).take(length), &mut io::sink())
            .map_err(ArchiveError::Read)?;
        if skipped < length {
            return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

/// The current member's data.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= read as u64;
        Ok(read)
    }
}

fn kind(flag: u8, path: &[u8]) -> Option<Kind> {
    Some(match flag {
        // Version 7 archives mark a directory by a slash only.
        0 if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' => Kind::Regular,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

/// The header's name, with ustar's prefix before it.
fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = until_nul(&header[345..500]);
    // GNU's magic is `ustar  \0`; it keeps other fields where POSIX keeps the prefix.
    if &header[257..263] != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(field)
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), ArchiveError> {
    let stated = signed(&block[148..156], "checksum")?;
    let byte = |(at, b): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *b };
    let unsigned: i64 = block.iter().enumerate().map(|e| i64::from(byte(e))).sum();
    // Old writers summed signed characters.
    let signed: i64 = block
        .iter()
        .enumerate()
        .map(|e| i64::from(byte(e).cast_signed()))
        .sum();
    if stated == unsigned || stated == signed {
        Ok(())
    } else {
        Err(ArchiveError::Checksum)
    }
}

fn number(field: &[u8], name: &'static str) -> Result<u64, ArchiveError> {
    u64::try_from(signed(field, name)?).map_err(|_| ArchiveError::Number(name))
}

fn small(field: &[u8], name: &'static str) -> Result<u32, ArchiveError> {
    u32::try_from(number(field, name)?).map_err(|_| ArchiveError::Number(name))
}

/// Octal digits padded by spaces and NULs, or GNU's base 256 when the first bit is set.
fn signed(field: &[u8], name: &'static str) -> Result<i64, ArchiveError> {
    let wrong = || ArchiveError::Number(name);
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return base256(field).ok_or_else(wrong);
    }
    let digits = field.trim_ascii_start();
    let digits = digits
        .split(|b| *b == 0 || *b == b' ')
        .next()
        .unwrap_or(digits);
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or_else(wrong),
        _ => Err(wrong()),
    })
}

/// Two's complement, big endian; the top bit of the first byte is the marker.
fn base256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let start = if negative {
        i128::from(first | 0x80) - 0x100
    } else {
        i128::from(first & 0x7f)
    };
    let value = rest.iter().try_fold(start, |value, b| {
        value.checked_mul(256).map(|value| value + i128::from(*b))
    })?;
    i64::try_from(value).ok()
}

/// Records `<length> <key>=<value>\n`; an empty value takes back the header's.
fn parse_pax(mut records: &[u8]) -> Result<Pax, ArchiveError> {
    let mut pax = Pax::default();
    while !records.is_empty() {
        let (key, value, rest) = pax_record(records).ok_or(ArchiveError::Extension)?;
        records = rest;
        let text = (!value.is_empty()).then_some(value);
        match key {
            b"path" => pax.path = path_value(text)?,
            b"linkpath" => pax.link = path_value(text)?,
            b"size" => pax.size = decimal(text, "size")?,
            b"uid" => pax.uid = decimal(text, "uid")?,
            b"gid" => pax.gid = decimal(text, "gid")?,
            b"mtime" => pax.mtime = time(text)?,
            _ if key.starts_with(b"GNU.sparse.") => pax.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    pax.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(pax)
}

type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn pax_record(records: &[u8]) -> Option<Record<'_>> {
    let space = records.iter().position(|b| *b == b' ')?;
    let length: usize = decimal_text(&records[..space])?.try_into().ok()?;
    if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
        return None;
    }
    let body = &records[space + 1..length - 1];
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &records[length..]))
}

fn path_value(value: Option<&[u8]>) -> Result<Option<Vec<u8>>, ArchiveError> {
    match value {
        Some(value) if value.contains(&0) => Err(ArchiveError::Extension),
        value => Ok(value.map(<[u8]>::to_vec)),
    }
}

fn decimal_text(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits {
        std::str::from_utf8(text).ok()?.parse().ok()
    } else {
        None
    }
}

fn decimal(value: Option<&[u8]>, name: &'static str) -> Result<Option<u64>, ArchiveError> {
    value
        .map(|text| decimal_text(text).ok_or(ArchiveError::Number(name)))
        .transpose()
}

/// `[-]seconds[.fraction]`.
fn time(value: Option<&[u8]>) -> Result<Option<(i64, u32)>, ArchiveError> {
    let Some(text) = value else { return Ok(None) };
    let parse = || {
        let text = std::str::from_utf8(text).ok()?;
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let negative = seconds.starts_with('-');
        let seconds: i64 = seconds.parse().ok()?;
        let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        Some(match (negative, nanos) {
            (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanos),
            _ => (seconds, nanos),
        })
    };
    parse().map(Some).ok_or(ArchiveError::Number("mtime"))
}

#[cfg(test)]
mod tests;
