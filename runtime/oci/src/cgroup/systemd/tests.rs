use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;

use super::*;

#[test]
fn scopes_are_named_as_engines_expect() {
    for (text, unit, path) in [
        (
            "system.slice:docker:1a",
            "docker-1a.scope",
            "system.slice/docker-1a.scope",
        ),
        (
            ":libpod:1a",
            "libpod-1a.scope",
            "system.slice/libpod-1a.scope",
        ),
        ("-.slice:a:b", "a-b.scope", "a-b.scope"),
        (
            "kubepods-burstable-pod1.slice:cri-containerd:1a",
            "cri-containerd-1a.scope",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-1a.scope",
        ),
        ("user.slice::x", "x.scope", "user.slice/x.scope"),
    ] {
        let scope = Scope::parse(text).unwrap();
        assert_eq!(
            (scope.unit(), scope.path()),
            (unit, PathBuf::from(path)),
            "{text}"
        );
    }
    for text in [
        "/a/b",
        "a:b",
        "a:b:c",
        "a.slice:b:",
        "a--b.slice:c:d",
        "-a.slice:c:d",
        "../a.slice:b:c",
        "a.slice:b:c/d",
        "a.slice:b:c.slice",
        "a.slice:b:c:d",
    ] {
        assert!(Scope::parse(text).is_err(), "{text}");
    }
}

#[test]
fn limits_become_properties() {
    let resources = r#"{"memory":{"limit":64,"swap":-1},"cpu":{"shares":1024,"quota":33333,"period":100000,
        "cpus":"0-2,9"},"pids":{"limit":-1},"unified":{"memory.high":"5"}}"#;
    let settings = resources::settings(&serde_json::from_str(resources).unwrap()).unwrap();
    let expected = [
        ("CPUWeight", Value::U64(100)),
        ("CPUQuotaPerSecUSec", Value::U64(340_000)),
        ("CPUQuotaPeriodUSec", Value::U64(100_000)),
        ("AllowedCPUs", Value::Bytes(vec![7, 2])),
        ("MemorySwapMax", Value::U64(u64::MAX)),
        ("MemoryMax", Value::U64(64)),
        ("TasksMax", Value::U64(u64::MAX)),
    ];
    assert_eq!(limits(&settings), expected);
    assert_eq!(
        quota("max"),
        [
            ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)),
            ("CPUQuotaPeriodUSec", Value::U64(100_000)),
        ]
    );
}

/// A server's message: a return, an error or a signal, with one header field and a body of texts.
fn said(kind: u8, field: (u8, &str, &[u8]), number: Option<u32>, texts: &[&str]) -> Vec<u8> {
    let mut body = Writer::default();
    number.into_iter().for_each(|number| body.u32(number));
    texts.iter().for_each(|text| body.text(text));
    let mut out = Writer(vec![b'l', kind, 0, 1]);
    out.u32(body.0.len() as u32);
    out.u32(1);
    out.array(8, |w| {
        let (code, signature, value) = field;
        w.0.extend([code, 1, signature.as_bytes()[0], 0]);
        match signature {
            "u" => w.0.extend(value),
            _ => w.text(&String::from_utf8_lossy(value)),
        }
    });
    let length = out.0.len().next_multiple_of(8);
    out.0.resize(length, 0);
    out.0.extend(body.0);
    out.0
}

#[test]
fn a_job_is_waited_for_whenever_its_end_is_told() {
    let folder = tempfile();
    let socket = folder.join("private");
    let listener = UnixListener::bind(&socket).unwrap();
    for (early, result) in [(true, "done"), (false, "done"), (false, "failed")] {
        let server = |listener: &UnixListener| {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            assert!(line.starts_with("\0AUTH EXTERNAL "), "{line:?}");
            // it came along: from here on nothing but calls may come
            let next = String::from_utf8_lossy(stream.buffer()).into_owned();
            assert_eq!(next, "BEGIN\r\n");
            stream.read_line(&mut line).unwrap();
            stream.get_mut().write_all(b"OK 00\r\n").unwrap();
            let mut start = vec![0; message::START];
            stream.read_exact(&mut start).unwrap();
            let mut rest = vec![0; message::length(&start).unwrap() - message::START];
            stream.read_exact(&mut rest).unwrap();
            let removed = said(
                4,
                (3, "s", b"JobRemoved"),
                Some(7),
                &["/job/7", "a.scope", result],
            );
            let other = said(
                4,
                (3, "s", b"JobRemoved"),
                Some(6),
                &["/job/6", "b.scope", "failed"],
            );
            let answer = said(2, (5, "u", &[1, 0, 0, 0]), None, &["/job/7"]);
            let messages = if early {
                [removed, other, answer]
            } else {
                [other, answer, removed]
            };
            stream.get_mut().write_all(&messages.concat()).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| server(&listener));
            let mut bus = Bus::open(&socket).unwrap();
            let job = start_unit(&mut bus, "a.scope", &[]).unwrap();
            assert_eq!(bus.wait_for_job(&job).is_ok(), result == "done");
        });
    }
    std::fs::remove_file(&socket).unwrap();
    std::fs::remove_dir(&folder).unwrap();
    assert!(matches!(Bus::open(&socket), Err(SystemdError::NotRunning)));
}

fn tempfile() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("berth-oci-bus-{}", std::process::id()));
    std::fs::DirBuilder::new().create(&folder).unwrap();
    folder
}
