//! Reads one CRI log file forward: `<RFC 3339 time> <stdout|stderr> <P|F> <content>`,
//! where `P` lines are joined to the next line of the same stream.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use jiff::Timestamp;

/// Bytes read at a time.
const BLOCK: usize = 128 * 1024;

/// Which lines are wanted and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only the last so many lines of what is there at the start.
    pub tail: Option<u64>,
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
    /// Each line with its time in front.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit: Option<u64>,
    /// Only `stdout` or only `stderr`.
    pub stream: Option<String>,
}

/// A log file being read.
#[derive(Debug)]
pub struct LogReader {
    file: File,
    selection: Selection,
    /// Bytes read that are no whole line yet.
    pending: Vec<u8>,
    /// Inside a line of several `P` parts: whether they are wanted.
    joining: Option<bool>,
    left: Option<u64>,
}

impl LogReader {
    /// Starts where `selection.tail` says.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(mut file: File, selection: Selection) -> io::Result<LogReader> {
        if let Some(lines) = selection.tail {
            let start = tail_start(&file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(LogReader {
            file,
            left: selection.limit,
            selection,
            pending: Vec::new(),
            joining: None,
        })
    }

    /// The file being read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Nothing was written behind what was read.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn is_read_up(&mut self) -> io::Result<bool> {
        Ok(self.file.stream_position()? >= self.file.metadata()?.len())
    }

    /// Goes on in the file that took this one's place.
    pub fn switch(&mut self, file: File) {
        self.file = file;
        self.pending.clear();
    }

    /// Nothing more will ever be given.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// The next wanted bytes; empty when a block held none, `None` at the end of the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.is_full() {
            return Ok(None);
        }
        let had = self.pending.len();
        self.pending.resize(had + BLOCK, 0);
        let read = self.file.read(&mut self.pending[had..]);
        self.pending.truncate(had + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            return Ok(None);
        }
        let block = std::mem::take(&mut self.pending);
        let mut out = Vec::with_capacity(block.len());
        let mut start = 0;
        // What was pending before has no line feed in it.
        while let Some(end) = find(&block[start.max(had)..]).map(|at| start.max(had) + at) {
            self.take_line(&block[start..end], &mut out);
            start = end + 1;
        }
        self.pending.extend_from_slice(&block[start..]);
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        Ok(Some(out))
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else {
            // Torn by a crash or not a CRI log: given as it is, nothing is hidden.
            out.extend_from_slice(line);
            out.push(b'\n');
            return;
        };
        let first = self.joining.is_none();
        let wanted = self.joining.unwrap_or_else(|| self.wants(&line));
        self.joining = line.partial.then_some(wanted);
        if !wanted {
            return;
        }
        if first && self.selection.timestamps {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
    }

    fn wants(&self, line: &Line<'_>) -> bool {
        if self
            .selection
            .stream
            .as_deref()
            .is_some_and(|s| s != line.stream)
        {
            return false;
        }
        match self.selection.since {
            None => true,
            Some(since) => line
                .time
                .parse::<Timestamp>()
                .is_ok_and(|time| time >= since),
        }
    }
}

/// One line of a CRI log.
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    content: &'a [u8],
}

impl Line<'_> {
    fn parse(line: &[u8]) -> Option<Line<'_>> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = std::str::from_utf8(parts.next()?).ok()?;
        let tags = parts.next()?;
        let first = tags.split(|byte| *byte == b':').next()?;
        let partial = match first {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Line {
            time,
            stream,
            partial,
            content: parts.next().unwrap_or_default(),
        })
    }
}

fn find(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// Where the last `lines` whole lines begin. Parts of a line count as one, a line not yet
/// ended as none.
fn tail_start(file: &File, lines: u64) -> io::Result<u64> {
    let mut begun = file.metadata()?.len();
    let mut seen = 0;
    // From `begun` up to the end of the line that is being walked over.
    let mut held: Vec<u8> = Vec::new();
    let mut line_end: Option<u64> = None;
    while begun > 0 {
        let size = begun.min(BLOCK as u64);
        begun -= size;
        let mut block = vec![0; usize::try_from(size).unwrap_or(BLOCK)];
        file.read_exact_at(&mut block, begun)?;
        block.append(&mut held);
        while let Some(feed) = block.iter().rposition(|byte| *byte == b'\n') {
            if let Some(end) = line_end
                && ends_a_line(&block[feed + 1..])
            {
                seen += 1;
                if seen > lines {
                    return Ok(end + 1);
                }
            }
            line_end = Some(begun + feed as u64);
            block.truncate(feed);
        }
        held = block;
    }
    match line_end {
        Some(end) if ends_a_line(&held) && seen == lines => Ok(end + 1),
        _ => Ok(0),
    }
}

fn ends_a_line(line: &[u8]) -> bool {
    Line::parse(line).is_none_or(|line| !line.partial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LOG: &str = "\
2026-01-01T00:00:00.1Z stdout F one
2026-01-01T00:00:01Z stderr P tw
2026-01-01T00:00:01.5Z stderr F o
2026-01-01T00:00:02+01:00 stdout F three

2026-01-01T00:00:03.000000001Z stdout F 
2026-01-01T00:00:04Z stdout F fi ve
";

    fn read(log: &str, selection: Selection) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(log.as_bytes()).unwrap();
        file.rewind().unwrap();
        let mut reader = LogReader::new(file, selection).unwrap();
        let mut all = Vec::new();
        while let Some(some) = reader.next().unwrap() {
            all.extend(some);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn parts_are_joined_and_torn_lines_kept() {
        let all = read(LOG, Selection::default());
        assert_eq!(all, "one\ntwo\nthree\n\n\nfi ve\n");
        assert_eq!(read("", Selection::default()), "");
        assert_eq!(read("no log\nx", Selection::default()), "no log\n");
    }

    #[test]
    fn tail_counts_lines_not_parts() {
        for (lines, expected) in [
            (0, ""),
            (1, "fi ve\n"),
            (4, "three\n\n\nfi ve\n"),
            (5, "two\nthree\n\n\nfi ve\n"),
            (6, "one\ntwo\nthree\n\n\nfi ve\n"),
            (7, "one\ntwo\nthree\n\n\nfi ve\n"),
            (u64::MAX, "one\ntwo\nthree\n\n\nfi ve\n"),
        ] {
            let tail = Some(lines);
            let selection = Selection {
                tail,
                ..Selection::default()
            };
            assert_eq!(read(LOG, selection), expected, "{lines}");
        }
    }

    #[test]
    fn tail_works_across_blocks() {
        use std::fmt::Write as _;
        let mut log = String::new();
        for i in 0..20_000 {
            writeln!(log, "2026-01-01T00:00:00Z stdout F line {i}").unwrap();
        }
        let selection = Selection {
            tail: Some(15_000),
            ..Selection::default()
        };
        let read = read(&log, selection);
        assert_eq!(read.lines().count(), 15_000);
        assert!(read.starts_with("line 5000\n") && read.ends_with("line 19999\n"));
    }

    #[test]
    fn selections() {
        let time = |text: &str| Some(text.parse().unwrap());
        for (selection, expected) in [
            (
                Selection {
                    since: time("2026-01-01T00:00:01.2Z"),
                    ..Selection::default()
                },
                // A line's time is that of its first part; the third line is an hour early.
                "\nfi ve\n",
            ),
            (
                Selection {
                    stream: Some("stderr".into()),
                    timestamps: true,
                    ..Selection::default()
                },
                "2026-01-01T00:00:01Z two\n",
            ),
            (
                Selection {
                    limit: Some(6),
                    ..Selection::default()
                },
                "one\ntw",
            ),
        ] {
            let log = LOG.replace("\n\n", "\n");
            let shown = format!("{selection:?}");
            assert_eq!(read(&log, selection), expected, "{shown}");
        }
    }
}
