use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::*;
use crate::stdio::{self, ChildEnds};

/// A container's streams without a container.
struct Bench {
    reactor: Rc<Reactor>,
    streams: Streams,
    child: Option<ChildEnds>,
    notes: Vec<Note>,
}

impl Bench {
    fn new(stdin: bool, stdin_once: bool, log: Option<PathBuf>) -> Self {
        let reactor = Reactor::new().unwrap();
        let mut streams = Streams::new(&reactor).unwrap();
        let log = log.map(|path| streams.logs().open(&path).unwrap());
        let (ends, child) = stdio::pipes(stdin, None).unwrap();
        let options = Options {
            tty: false,
            stdin_once,
        };
        streams.add(1, ends, log, options).unwrap();
        Self {
            reactor,
            streams,
            child: Some(child),
            notes: Vec::new(),
        }
    }

    fn stdout(&self) -> std::fs::File {
        self.child
            .as_ref()
            .unwrap()
            .stdout
            .try_clone()
            .unwrap()
            .into()
    }

    /// Serves whatever becomes ready within a short while.
    fn turn(&mut self) {
        let until = Instant::now() + Duration::from_millis(30);
        while Instant::now() < until {
            for token in self.reactor.wait(Some(until)).unwrap() {
                match token {
                    Token::Output(container, stream) => {
                        self.streams.output_ready(container, stream)
                    }
                    Token::Input(container) => self.streams.input_ready(container),
                    Token::AttachInput(number) => self.streams.attach_input_ready(number),
                    Token::AttachOutput(number, stream) => {
                        self.streams.attach_output_ready(number, stream)
                    }
                    Token::Logs => self.streams.logs_ready(),
                    other => panic!("{other:?}"),
                }
                .unwrap();
            }
            self.notes.extend(self.streams.notes());
        }
    }
}

fn pipe() -> (std::fs::File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    (read.into(), write)
}

fn out(stdout: OwnedFd) -> AttachFds {
    AttachFds {
        stdout: Some(stdout),
        ..AttachFds::default()
    }
}

#[test]
fn several_attachments_get_all_output_and_the_end() {
    let mut bench = Bench::new(false, false, None);
    let (mut first, write) = pipe();
    let one = bench.streams.attach(1, out(write)).unwrap();
    let (mut second, write) = pipe();
    let two = bench.streams.attach(1, out(write)).unwrap();
    bench.stdout().write_all(b"hello\n").unwrap();
    bench.turn();
    bench.child = None;
    bench.turn();
    for reader in [&mut first, &mut second] {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
    }
    assert!(bench.notes.contains(&Note::AttachEnded(one)));
    assert!(bench.notes.contains(&Note::AttachEnded(two)));
    assert!(bench.notes.contains(&Note::Drained(1)));
}

#[test]
fn a_slow_attachment_holds_the_output_back_and_loses_nothing() {
    let mut bench = Bench::new(false, false, None);
    let (mut reader, write) = pipe();
    bench.streams.attach(1, out(write)).unwrap();
    let total = 1024 * 1024;
    let mut stdout = bench.stdout();
    let writer = std::thread::spawn(move || stdout.write_all(&vec![b'x'; total]).unwrap());
    bench.turn();
    assert!(
        bench.streams.deadline().is_some(),
        "the stalled client has a deadline"
    );
    assert!(!writer.is_finished(), "the workload waits for the client");
    let counter = std::thread::spawn(move || {
        let mut count = 0;
        let mut buffer = [0; 65536];
        while count < total {
            count += reader.read(&mut buffer).unwrap();
        }
        count
    });
    while !writer.is_finished() || bench.streams.deadline().is_some() {
        bench.turn();
    }
    writer.join().unwrap();
    assert_eq!(counter.join().unwrap(), total);
}

#[test]
fn a_client_that_went_away_is_forgotten() {
    let mut bench = Bench::new(false, false, None);
    let (reader, write) = pipe();
    bench.streams.attach(1, out(write)).unwrap();
    drop(reader);
    for _ in 0..3 {
        bench.stdout().write_all(b"to nobody\n").unwrap();
        bench.turn();
    }
    assert!(bench.streams.deadline().is_none());
}

#[test]
fn stdin_is_fed_and_closed_only_when_asked_once() {
    for once in [false, true] {
        let mut bench = Bench::new(true, once, None);
        let mut child: std::fs::File = bench
            .child
            .as_ref()
            .unwrap()
            .stdin
            .try_clone()
            .unwrap()
            .into();
        rustix::io::ioctl_fionbio(&child, true).unwrap();
        let (client_end, writer) = rustix::pipe::pipe().unwrap();
        let fds = AttachFds {
            stdin: Some(client_end),
            ..AttachFds::default()
        };
        bench.streams.attach(1, fds).unwrap();
        rustix::io::write(&writer, b"typed\n").unwrap();
        bench.turn();
        drop(writer);
        bench.turn();
        let mut text = [0; 64];
        assert_eq!(child.read(&mut text).unwrap(), 6);
        let end = child.read(&mut text);
        if once {
            assert_eq!(end.unwrap(), 0, "half-closed");
            let (client_end, _writer) = rustix::pipe::pipe().unwrap();
            let fds = AttachFds {
                stdin: Some(client_end),
                ..AttachFds::default()
            };
            assert!(matches!(
                bench.streams.attach(1, fds),
                Err(AttachError::NoStdin)
            ));
        } else {
            assert_eq!(
                end.unwrap_err().kind(),
                io::ErrorKind::WouldBlock,
                "still open"
            );
        }
    }
}

#[test]
fn more_stdin_than_the_container_reads_waits_in_the_client() {
    let mut bench = Bench::new(true, true, None);
    let mut child: std::fs::File = bench
        .child
        .as_ref()
        .unwrap()
        .stdin
        .try_clone()
        .unwrap()
        .into();
    let (client_end, writer) = rustix::pipe::pipe().unwrap();
    let fds = AttachFds {
        stdin: Some(client_end),
        ..AttachFds::default()
    };
    bench.streams.attach(1, fds).unwrap();
    let total = 300_000;
    let feeder = std::thread::spawn(move || {
        std::fs::File::from(writer)
            .write_all(&vec![b'y'; total])
            .unwrap();
    });
    bench.turn();
    assert!(!feeder.is_finished());
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        child.read_to_end(&mut text).unwrap();
        text.len()
    });
    // The bench holds the container's end of stdin too.
    while !feeder.is_finished() {
        bench.turn();
    }
    while !reader.is_finished() {
        bench.turn();
    }
    assert_eq!(reader.join().unwrap(), total);
}

#[test]
fn a_plain_file_cannot_be_attached() {
    let mut bench = Bench::new(false, false, None);
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let fds = out(file.into());
    assert!(matches!(
        bench.streams.attach(1, fds),
        Err(AttachError::Descriptor {
            stream: "stdout",
            ..
        })
    ));
    assert!(matches!(
        bench.streams.attach(9, AttachFds::default()),
        Err(AttachError::Ended)
    ));
}

#[test]
fn a_flood_goes_to_the_log_and_the_attachment_alike() {
    let folder = std::env::temp_dir().join(format!("berth-streams-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("0.log");
    let mut bench = Bench::new(false, false, Some(path.clone()));
    let mut stdout = bench.stdout();
    bench.child = None;
    let writer = std::thread::spawn(move || {
        for line in 0..50_000 {
            writeln!(stdout, "line {line}").unwrap();
        }
    });
    while !bench.notes.contains(&Note::Drained(1)) {
        bench.turn();
    }
    writer.join().unwrap();
    bench.streams.remove(1);
    bench.streams.finish();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 50_000);
    assert!(
        text.lines()
            .last()
            .unwrap()
            .ends_with(" stdout F line 49999")
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_terminal_s_end_is_an_end() {
    let reactor = Reactor::new().unwrap();
    let mut streams = Streams::new(&reactor).unwrap();
    let pair = pty::open().unwrap();
    let ends = stdio::terminal(pair.master, true).unwrap();
    let options = Options {
        tty: true,
        stdin_once: false,
    };
    streams.add(1, ends, None, options).unwrap();
    streams.resize(1, 40, 100).unwrap().unwrap();
    let size = rustix::termios::tcgetwinsize(pair.slave.as_fd()).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (40, 100));
    rustix::io::write(&pair.slave, b"bye\n").unwrap();
    drop(pair.slave);
    let mut bench = Bench {
        reactor,
        streams,
        child: None,
        notes: Vec::new(),
    };
    bench.turn();
    assert_eq!(bench.notes, [Note::Drained(1)]);
}
