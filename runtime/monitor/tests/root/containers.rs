//! Containers from launch to exit record.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;

use berth_monitor::protocol::*;

use crate::pod::{Pod, skipped, wait_until};

#[test]
fn root_a_container_runs_logs_and_leaves_a_record() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let mut events = pod.connect();
    let (reply, _) = events.call(&Request::Subscribe { after: 0 }, &[]).unwrap();
    assert!(matches!(
        reply,
        Reply::Subscribed {
            last: 0,
            missed: false
        }
    ));
    let container = pod.container("c1", "echo out; echo err >&2; exit 3");
    let launched = pod.launch(&container);
    let started = events.next_event().unwrap();
    assert!(matches!(started.kind, EventKind::Started { pid, .. } if pid == launched.pid));
    let exited = events.next_event().unwrap();
    let EventKind::Exited(record) = exited.kind else {
        panic!("{exited:?}")
    };
    assert_eq!(
        (record.code, record.signal, record.oom_killed),
        (3, None, false)
    );
    assert!(record.finished_at >= record.started_at);
    let log = pod.log_text("c1");
    assert!(
        log.contains(" stdout F out\n") && log.contains(" stderr F err\n"),
        "{log}"
    );
    let saved: PodState =
        serde_json::from_slice(&std::fs::read(pod.directory().join(STATE_NAME)).unwrap()).unwrap();
    assert_eq!(saved.containers[0].exit.as_ref(), Some(&record));
    assert_eq!(
        pod.kind_of_failure(&Request::Launch(container)),
        ErrorKind::AlreadyExists
    );
    pod.connect()
        .call(
            &Request::Forget {
                container: "c1".into(),
            },
            &[],
        )
        .unwrap();
    assert!(pod.state().containers.is_empty());
    pod.shutdown();
}

#[test]
fn root_signals_reach_init_or_all() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    pod.launch(&pod.container(
        "term",
        "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done",
    ));
    wait_until("the trap is set", || pod.log_text("term").contains("ready"));
    pod.signal("term", 15, false);
    assert_eq!(pod.exit_of("term").code, 7);
    pod.launch(&pod.container("kill", "sleep 1000 & sleep 1000"));
    pod.signal("kill", 9, true);
    let record = pod.exit_of("kill");
    assert_eq!((record.code, record.signal), (137, Some(9)));
    pod.signal("kill", 9, true);
    pod.shutdown();
}

/// Prints numbered lines for ever.
const COUNTING: &str = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done";

/// Set for the run of this program that is to be the client.
const CLIENT: &str = "BERTH_TEST_CLIENT";

/// Not a test of its own: what [`root_the_pod_outlives_its_client`] kills.
#[test]
fn client_process() {
    if std::env::var_os(CLIENT).is_none() {
        return;
    }
    let pod = Pod::start();
    pod.launch(&pod.container("c", COUNTING));
    wait_until("it logs", || pod.log_text("c").lines().count() > 3);
    let mut events = pod.connect();
    events.call(&Request::Subscribe { after: 0 }, &[]).unwrap();
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
    let _session = pod.exec("c", "sleep 3000", false, &fds);
    println!("pod: {}", pod.tell());
    loop {
        std::thread::park();
    }
}

#[test]
fn root_the_pod_outlives_its_client() {
    if skipped() {
        return;
    }
    // The client is another run of this program: parent of the monitor, with connections and a session open.
    let mut client = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "containers::client_process", "--nocapture"])
        .env(CLIENT, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let told = lines
        .map(Result::unwrap)
        .find_map(|line| line.split_once("pod: ").map(|(_, told)| told.to_owned()));
    let pod = Pod::adopt(&told.unwrap());
    client.kill().unwrap();
    client.wait().unwrap();
    let before = pod.log_text("c").lines().count();
    let state = pod.state();
    assert!(state.containers[0].exit.is_none() && state.containers[0].pid.is_some());
    let in_container = || {
        std::fs::read_dir(pod.cgroup_path().join("c"))
            .unwrap()
            .flatten()
    };
    wait_until("the dead client's session is gone", || {
        !in_container().any(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("berth-exec-")
        })
    });
    wait_until("it logs on", || {
        pod.log_text("c").lines().count() > before + 3
    });
    let mut events = pod.connect();
    events.call(&Request::Subscribe { after: 0 }, &[]).unwrap();
    assert!(matches!(
        events.next_event().unwrap(),
        Event {
            seq: 1,
            kind: EventKind::Started { .. }
        }
    ));
    pod.shutdown();
}

#[test]
fn root_rotation_loses_and_doubles_no_line() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    pod.launch(&pod.container("c", COUNTING));
    wait_until("it logs", || pod.log_text("c").lines().count() > 3);
    // Rotation as the kubelet does it.
    std::fs::rename(pod.log("c"), pod.log("c.old")).unwrap();
    pod.connect()
        .call(
            &Request::ReopenLog {
                container: "c".into(),
            },
            &[],
        )
        .unwrap();
    wait_until("the new file fills", || {
        pod.log_text("c").lines().count() > 3
    });
    let number = |text: &str| -> Vec<usize> {
        text.lines()
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect()
    };
    let all = [number(&pod.log_text("c.old")), number(&pod.log_text("c"))].concat();
    assert!(
        all.iter().enumerate().all(|(index, value)| index == *value),
        "no line lost or doubled"
    );
    pod.shutdown();
}

#[test]
fn root_the_death_of_pause_is_an_event() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let pause = rustix::process::Pid::from_raw(pod.state().pause_pid.unwrap()).unwrap();
    let mut events = pod.connect();
    events.call(&Request::Subscribe { after: 0 }, &[]).unwrap();
    rustix::process::kill_process(pause, rustix::process::Signal::KILL).unwrap();
    assert_eq!(events.next_event().unwrap().kind, EventKind::PauseExited);
    assert_eq!(pod.state().pause_pid, None);
    pod.shutdown();
}

#[test]
fn root_what_cannot_be_launched_is_refused_and_leaves_nothing() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let mut missing = pod.container("missing", "true");
    pod.edit("missing", |spec| {
        spec["process"]["args"] = serde_json::json!(["/no/such/program"])
    });
    assert_eq!(
        pod.kind_of_failure(&Request::Launch(missing.clone())),
        ErrorKind::Launch
    );
    missing.tty = true;
    assert_eq!(
        pod.kind_of_failure(&Request::Launch(missing)),
        ErrorKind::Invalid
    );
    let mut unknown = pod.container("unknown", "true");
    pod.edit("unknown", |spec| spec["proces"] = 1.into());
    assert_eq!(
        pod.kind_of_failure(&Request::Launch(unknown.clone())),
        ErrorKind::Invalid
    );
    unknown.id = "../up".into();
    assert_eq!(
        pod.kind_of_failure(&Request::Launch(unknown)),
        ErrorKind::Invalid
    );
    assert!(pod.state().containers.is_empty());
    pod.shutdown();
}

#[test]
fn root_a_container_in_a_shared_pid_namespace_ends_whole() {
    if skipped() {
        return;
    }
    let pod = Pod::sharing_pids();
    // The child in the background would keep the output open and live on under pause.
    pod.launch(&pod.container(
        "c",
        "sleep 3000 & echo started; read line < /dev/null; exit 4",
    ));
    pod.launch(&pod.container("other", "sleep 3000"));
    let record = pod.exit_of("c");
    assert_eq!(record.code, 4);
    wait_until("its cgroup is gone", || {
        !pod.cgroup_path().join("c").exists()
    });
    assert!(pod.log_text("c").contains("stdout F started"));
    // A session ends with its container, and its client learns that.
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
    let (mut session, ..) = pod.exec("other", "sleep 3000", false, &fds);
    pod.signal("other", 9, false);
    let ended = session.next_reply().unwrap().0;
    assert!(
        matches!(
            ended,
            Reply::ExecExited {
                code: 137,
                signal: Some(9)
            }
        ),
        "{ended:?}"
    );
    assert_eq!(pod.exit_of("other").signal, Some(9));
    pod.shutdown();
}
