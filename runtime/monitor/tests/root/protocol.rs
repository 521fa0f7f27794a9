//! Starting a monitor, and what breaks the protocol.

use std::os::fd::AsFd;

use berth_monitor::client::Connection;
use berth_monitor::protocol::*;

use crate::pod::{Pod, skipped};

#[test]
fn root_a_second_monitor_for_a_directory_is_refused() {
    if skipped() {
        return;
    }
    let pod = Pod::bare();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_berth-monitor"))
        .arg("--dir")
        .arg(pod.directory())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("already"), "{said}");
    assert_eq!(pod.state().monitor_pid, pod.monitor_pid().cast_signed());
    pod.shutdown();
}

#[test]
fn root_a_detached_monitor_is_ready_when_its_starter_returns() {
    if skipped() {
        return;
    }
    let name = format!("berth-monitor-detached-{}", std::process::id());
    let directory = std::env::temp_dir().join(&name);
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_berth-monitor"));
        command
            .args(["--detach", "--cgroup", &name, "--dir"])
            .arg(&directory);
        command.output().unwrap()
    };
    let started = start();
    assert!(
        started.status.success(),
        "{}",
        String::from_utf8_lossy(&started.stderr)
    );
    let mut connection = Connection::connect(&directory.join(SOCKET_NAME)).unwrap();
    let pid = connection.monitor_pid();
    let proc = |file: &str| std::path::PathBuf::from(format!("/proc/{pid}/{file}"));
    assert_eq!(
        std::fs::read_link(proc("fd/2")).unwrap().to_str(),
        Some("/dev/null")
    );
    let stat = std::fs::read_to_string(proc("stat")).unwrap();
    let session: i32 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(3)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(session, pid, "a session of its own");
    let cgroup = std::fs::read_to_string(proc("cgroup")).unwrap();
    assert!(cgroup.contains(&format!("0::/{name}\n")), "{cgroup}");
    let second = start();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("already"));
    connection.call(&Request::Shutdown, &[]).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let mount = berth_oci::cgroup::Host::probe().unwrap().mount;
    berth_oci::cgroup::Cgroup::open(&mount.join(name))
        .unwrap()
        .remove()
        .unwrap();
}

#[test]
fn root_what_breaks_the_protocol_is_answered_and_harms_nobody() {
    if skipped() {
        return;
    }
    let pod = Pod::bare();
    let raw = berth_sys::seqpacket::Socket::connect(&pod.socket()).unwrap();
    for bytes in [
        &b""[..],
        b"{",
        b"\"State\"",
        b"{\"Hello\":{\"version\":0}}",
        &[0xff; 40_000],
    ] {
        raw.send(bytes, &[]).unwrap();
        let (reply, _) = raw.recv().unwrap().unwrap();
        assert!(matches!(
            serde_json::from_slice(&reply).unwrap(),
            Reply::Error { .. }
        ));
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    let refused = pod
        .connect()
        .call(&Request::State, &[null.as_fd()])
        .unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::Protocol));
    for (request, kind) in [
        (
            Request::Signal {
                container: "x".into(),
                signal: 9,
                all: false,
            },
            ErrorKind::NotFound,
        ),
        (
            Request::ReopenLog {
                container: "x".into(),
            },
            ErrorKind::NotFound,
        ),
        (
            Request::Resize {
                container: "x".into(),
                exec_id: None,
                rows: 1,
                cols: 1,
            },
            ErrorKind::NotFound,
        ),
    ] {
        assert_eq!(pod.kind_of_failure(&request), kind);
    }
    pod.shutdown();
}
