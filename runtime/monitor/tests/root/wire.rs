//! The first version of the protocol, as its release spoke it: what an upgrade finds running.
//!
//! `version-1.jsonl` may gain messages; a message that is there never changes. When it has to, the
//! version goes up, and the next file stands beside this one.

use std::os::fd::AsFd;

use berth_monitor::client::{CallError, Connection};
use berth_monitor::protocol::*;
use berth_sys::seqpacket::{Listener, Socket};
use serde_json::Value;

use crate::pod::{Pod, skipped};

const VERSION_1: &str = include_str!("version-1.jsonl");

/// Who says what, in order.
fn transcript() -> Vec<(bool, Value)> {
    let line = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap();
        match (message.get("daemon"), message.get("monitor")) {
            (Some(said), None) => (true, said.clone()),
            (None, Some(said)) => (false, said.clone()),
            _ => panic!("{line}"),
        }
    };
    VERSION_1.lines().map(line).collect()
}

/// What of `recorded` is not in `said`, which may have more fields.
fn missing(recorded: &Value, said: &Value) -> Option<String> {
    match (recorded, said) {
        (Value::Object(fields), Value::Object(said)) => fields.iter().find_map(|(key, value)| {
            let found = said.get(key).map(|said| missing(value, said));
            found.unwrap_or_else(|| Some(format!("`{key}` in {said:?}")))
        }),
        (Value::Array(items), Value::Array(said)) if items.len() == said.len() => {
            let mut pairs = items.iter().zip(said);
            pairs.find_map(|(one, other)| missing(one, other))
        }
        _ if recorded == said => None,
        _ => Some(format!("{recorded}, but {said}")),
    }
}

/// Plays the recorded monitor for one connection.
fn play(listener: &Listener) {
    let socket = listener.accept().unwrap();
    for (by_daemon, message) in transcript() {
        if by_daemon {
            let (bytes, _) = socket.recv().unwrap().unwrap();
            let said = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(missing(&message, &said), None);
        } else {
            socket.send(message.to_string().as_bytes(), &[]).unwrap();
        }
    }
}

#[test]
fn todays_daemon_speaks_with_a_monitor_of_version_1() {
    let path = std::env::temp_dir().join(format!("berth-wire-{}.sock", std::process::id()));
    let listener = Listener::bind(&path).unwrap();
    let monitor = std::thread::spawn(move || play(&listener));
    let mut connection = Connection::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((connection.version(), connection.monitor_pid()), (1, 4711));
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut request = None;
    for (by_daemon, message) in transcript().into_iter().skip(2) {
        if by_daemon {
            let asked: Request = serde_json::from_value(message).unwrap();
            request = Some(asked);
            continue;
        }
        let fds = [null.as_fd(); 3];
        let answer = match request.take() {
            Some(asked @ (Request::Exec(_) | Request::Attach { .. })) => {
                connection.call(&asked, &fds)
            }
            Some(asked) => connection.call(&asked, &[]),
            None => connection.next_reply(),
        };
        let understood = match answer {
            Ok((reply, _)) => reply,
            Err(CallError::Refused {
                code,
                message,
                record,
            }) => Reply::Error {
                code,
                message,
                record,
            },
            Err(error) => panic!("{error}"),
        };
        let understood = serde_json::to_value(understood).unwrap();
        assert_eq!(missing(&message, &understood), None);
    }
    monitor.join().unwrap();
}

/// What a message is, and which fields of which types it has.
fn shape(message: &Value) -> Value {
    match message {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), shape(value)))
            .collect(),
        Value::Number(_) => 0.into(),
        Value::Bool(_) => false.into(),
        // A variant's name is told by its place.
        Value::String(_) => "".into(),
        Value::Array(_) | Value::Null => Value::Null,
    }
}

/// Greets the monitor, asks, and takes what it says: so many replies, as they are on the wire.
fn ask(pod: &Pod, request: &Request, replies: usize) -> Vec<Value> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let streams = [null.as_fd(); 3];
    let fds = match request {
        Request::Exec(_) => &streams[..],
        _ => &[],
    };
    let socket = Socket::connect(&pod.socket()).unwrap();
    let hello = Request::Hello { version: 1 };
    let send = |request, fds| {
        let bytes = serde_json::to_vec(request).unwrap();
        socket.send(&bytes, fds).unwrap();
    };
    let receive = || serde_json::from_slice(&socket.recv().unwrap().unwrap().0).unwrap();
    send(&hello, &[]);
    let mut said = vec![receive()];
    send(request, fds);
    said.extend((0..replies).map(|_| receive()));
    said
}

/// The recording is of what this release's monitor says: where it no longer is, the wire has changed.
#[test]
fn root_the_monitor_answers_as_recorded() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let mut plain = pod.container("plain", "while :; do sleep 0.05; done");
    plain.stdin = true;
    let ask = |request: &Request, replies| ask(&pod, request, replies);
    let exec = ExecSession {
        container: "plain".into(),
        process: serde_json::json!({"args": ["/bin/echo"], "cwd": "/", "user": {"uid": 0, "gid": 0}}),
        tty: false,
    };
    let container = "plain".to_owned();
    let mut said = ask(&Request::Launch(plain.clone()), 1);
    said.extend(ask(&Request::Launch(plain), 1));
    said.extend(ask(&Request::Exec(exec.into()), 2));
    said.extend(ask(
        &Request::CloseStdin {
            container: container.clone(),
        },
        1,
    ));
    said.extend(ask(
        &Request::Signal {
            container,
            signal: 9,
            all: true,
        },
        1,
    ));
    pod.exit_of("plain");
    said.extend(ask(&Request::State, 1));
    said.extend(ask(&Request::Subscribe { after: 0 }, 3));
    let recorded = transcript();
    for message in said {
        let shaped = shape(&message);
        let known = recorded.iter().any(|(by_daemon, recorded)| {
            !by_daemon && missing(&shape(recorded), &shaped).is_none()
        });
        assert!(known, "not recorded: {message}");
    }
    pod.shutdown();
}
