//! The files of a log: their names, and what stands in them line by line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::entry::LONGEST_LINE;

/// Name of the signed head.
pub const HEAD_NAME: &str = "head.json";
const SUFFIX: &str = ".jsonl";
const DIGITS: usize = 20;

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} `{path}`")]
pub struct FileError {
    /// What was tried.
    pub step: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: std::io::Error,
}

/// Names the step and the file of an I/O error.
pub fn io<E: Into<std::io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> FileError {
    let path = path.to_owned();
    move |source| FileError {
        step,
        path,
        source: source.into(),
    }
}

/// The name of the file whose first entry is `first`.
pub fn name(first: u64) -> String {
    format!("{first:0DIGITS$}{SUFFIX}")
}

/// The files of the folder `dir` by their first entries, oldest first.
pub fn list(dir: &Path) -> Result<Vec<u64>, FileError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("list", dir))? {
        let name = entry.map_err(io("list", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let number = number.filter(|digits| digits.len() == DIGITS);
        files.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
    }
    files.sort_unstable();
    Ok(files)
}

/// Opens a file of the log for reading; a symbolic link is none.
pub fn open(path: &Path) -> Result<File, FileError> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    let opened = File::options()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path);
    opened.map_err(io("open", path))
}

/// The signed line of the head; None when there is none.
pub fn read_head(dir: &Path) -> Result<Option<String>, FileError> {
    let path = dir.join(HEAD_NAME);
    let file = match open(&path) {
        Ok(file) => file,
        Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut line = Vec::new();
    file.take(4096)
        .read_to_end(&mut line)
        .map_err(io("read", &path))?;
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// A line of a log.
#[derive(Debug, Clone)]
pub struct Line {
    /// Number in its file, from 1.
    pub number: u64,
    /// Its bytes without the line feed.
    pub bytes: Vec<u8>,
    /// False: there is no line feed, so what wrote it did not finish.
    pub complete: bool,
}

/// The lines of one file. One that is longer than any entry is cut, and no entry then.
pub struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    number: u64,
}

impl Lines {
    /// The lines of the file `path`.
    pub fn open(path: &Path) -> Result<Lines, FileError> {
        Ok(Lines {
            reader: BufReader::with_capacity(64 * 1024, open(path)?),
            path: path.to_owned(),
            number: 0,
        })
    }
}

impl Iterator for Lines {
    type Item = Result<Line, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        let mut bounded = self.reader.by_ref().take(LONGEST_LINE as u64);
        match bounded.read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(io("read", &self.path)(error))),
        }
        let complete = bytes.last() == Some(&b'\n');
        if complete {
            bytes.pop();
        }
        self.number += 1;
        Some(Ok(Line {
            number: self.number,
            bytes,
            complete,
        }))
    }
}

/// The lines of all files of a log, oldest first, each with the path of its file.
pub struct Scan {
    open: Option<(PathBuf, Lines)>,
    left: VecDeque<PathBuf>,
}

/// Whether one of the newest entries tells of the start of the container `id`: what the last
/// and the last but one file hold.
///
/// # Errors
/// The log cannot be read.
pub fn tells_of_start(dir: &Path, id: &str) -> Result<bool, FileError> {
    for first in list(dir)?.into_iter().rev().take(2) {
        for line in Lines::open(&dir.join(name(first)))? {
            let entry = crate::entry::parse(&line?.bytes);
            let found = |entry: crate::Entry| {
                entry.kind == crate::Kind::Start && entry.subject.container_id == id
            };
            if entry.is_ok_and(found) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Every line of the log in the folder `dir`, in order.
///
/// # Errors
/// The folder cannot be listed.
pub fn entries(dir: &Path) -> Result<Scan, FileError> {
    let files = list(dir)?;
    Ok(Scan {
        open: None,
        left: files.iter().map(|first| dir.join(name(*first))).collect(),
    })
}

impl Iterator for Scan {
    type Item = Result<(PathBuf, Line), FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((path, lines)) = &mut self.open {
                match lines.next() {
                    Some(Ok(line)) => return Some(Ok((path.clone(), line))),
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.open = None,
                }
            }
            let path = self.left.pop_front()?;
            match Lines::open(&path) {
                Ok(lines) => self.open = Some((path, lines)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
