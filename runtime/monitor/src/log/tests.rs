use std::time::Duration;

use super::format::{Entry, split};
use super::*;

fn entries(chunks: &[&[u8]]) -> (Vec<(bool, Vec<u8>)>, Vec<u8>) {
    let mut held = Vec::new();
    let mut seen = Vec::new();
    for chunk in chunks {
        split(&mut held, chunk, |Entry { full, held, fresh }| {
            seen.push((*full, [*held, *fresh].concat()));
        });
    }
    (seen, held)
}

#[test]
fn lines_are_split_across_chunks() {
    let full = |text: &str| (true, text.as_bytes().to_vec());
    for (chunks, expected, rest) in [
        (vec![&b""[..]], vec![], ""),
        (vec![b"a\n"], vec![full("a")], ""),
        (vec![b"\n\n"], vec![full(""), full("")], ""),
        (vec![b"a\nb", b"c\nd"], vec![full("a"), full("bc")], "d"),
        (vec![b"a", b"\n"], vec![full("a")], ""),
        (vec![b"a\r\n"], vec![full("a\r")], ""),
    ] {
        let (seen, held) = entries(&chunks);
        assert_eq!(seen, expected);
        assert_eq!(held, rest.as_bytes());
    }
}

#[test]
fn a_line_is_cut_only_where_it_is_longer_than_the_limit() {
    let exact = [vec![b'x'; LINE_MAX], b"\n".to_vec()].concat();
    let (seen, held) = entries(&[&exact]);
    assert_eq!(seen, [(true, vec![b'x'; LINE_MAX])]);
    assert!(held.is_empty());
    // The same in two chunks, the end of the line alone in the second.
    let (seen, _) = entries(&[&exact[..LINE_MAX], b"\n"]);
    assert_eq!(seen, [(true, vec![b'x'; LINE_MAX])]);
    let long = [vec![b'x'; LINE_MAX * 2 + 5], b"\n".to_vec()].concat();
    let (seen, held) = entries(&[
        &long[..100],
        &long[100..LINE_MAX + 100],
        &long[LINE_MAX + 100..],
    ]);
    let sizes: Vec<_> = seen
        .iter()
        .map(|(full, text)| (*full, text.len()))
        .collect();
    assert_eq!(sizes, [(false, LINE_MAX), (false, LINE_MAX), (true, 5)]);
    assert!(held.is_empty());
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("berth-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn wait_for(logs: &mut Logs, wanted: &Report) {
    for _ in 0..2000 {
        if logs.reports().contains(wanted) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no {wanted:?}");
}

fn write(logs: &mut Logs, log: LogId, stream: Stream, text: &[u8]) {
    let mut buffer = loop {
        match logs.buffer() {
            Some(buffer) => break buffer,
            None => wait_for(logs, &Report::Room),
        }
    };
    buffer.extend_from_slice(text);
    logs.write(log, stream, 0, buffer).unwrap();
}

#[test]
fn output_is_written_rotated_and_ended() {
    let folder = Folder::new("rotate");
    let path = folder.0.join("0.log");
    let mut logs = Logs::new().unwrap();
    let log = logs.open(&path).unwrap();
    assert!(path.exists(), "the file exists before any output");
    std::fs::remove_file(&path).unwrap();
    logs.reopen(log).unwrap();
    wait_for(&mut logs, &Report::Reopened { log, error: None });
    assert!(path.exists(), "it is made anew without any output");
    write(&mut logs, log, Stream::Stdout, b"one\ntw");
    write(&mut logs, log, Stream::Stderr, b"err\n");
    std::fs::rename(&path, folder.0.join("0.log.1")).unwrap();
    logs.reopen(log).unwrap();
    wait_for(&mut logs, &Report::Reopened { log, error: None });
    write(&mut logs, log, Stream::Stdout, b"o\nrest");
    logs.close(log);
    logs.finish();
    let time = "1970-01-01T00:00:00.000000000Z";
    assert_eq!(
        std::fs::read_to_string(folder.0.join("0.log.1")).unwrap(),
        format!("{time} stdout F one\n{time} stderr F err\n")
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        format!("{time} stdout F two\n{time} stdout P rest\n")
    );
}

#[test]
fn nothing_is_lost_under_a_flood() {
    let folder = Folder::new("flood");
    let path = folder.0.join("0.log");
    let mut logs = Logs::new().unwrap();
    let log = logs.open(&path).unwrap();
    let chunk = [b"0123456789".repeat(10), b"\n".to_vec()]
        .concat()
        .repeat(160);
    for _ in 0..200 {
        write(
            &mut logs,
            log,
            Stream::Stdout,
            &chunk[..CHUNK.min(chunk.len())],
        );
    }
    logs.close(log);
    logs.finish();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 160 * 200);
    assert!(
        text.lines()
            .all(|line| line.len() == format::PREFIX_LEN + 100)
    );
}

#[test]
fn a_full_disk_loses_output_but_never_blocks() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full");
        return;
    }
    let mut logs = Logs::new().unwrap();
    let log = logs.open(Path::new("/dev/full")).unwrap();
    write(&mut logs, log, Stream::Stdout, b"gone\n");
    wait_for(
        &mut logs,
        &Report::Lost {
            log,
            bytes: format::PREFIX_LEN as u64 + 5,
        },
    );
    assert!(!logs.flush(log));
    wait_for(&mut logs, &Report::Flushed { log });
    logs.finish();
}

#[test]
fn a_log_is_not_opened_through_a_symlink_nor_waits_for_a_reader() {
    let folder = Folder::new("link");
    std::fs::write(folder.0.join("victim"), "").unwrap();
    std::os::unix::fs::symlink("victim", folder.0.join("0.log")).unwrap();
    assert!(Logs::new().unwrap().open(&folder.0.join("0.log")).is_err());
}
