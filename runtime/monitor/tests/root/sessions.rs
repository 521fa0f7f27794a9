//! Exec sessions, attachments, terminals.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use berth_monitor::protocol::*;

use crate::pod::{Pod, skipped, wait_until};

#[test]
fn root_exec_has_its_streams_exit_code_and_end() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    pod.launch(&pod.container("c", "sleep 1000"));
    assert_eq!(
        pod.exec_output("c", "echo hello; exit 42"),
        ("hello\n".into(), 42)
    );
    // Piped stdin with its half-close.
    let (input_read, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (output, output_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let fds = [
        input_read.as_fd(),
        output_write.as_fd(),
        output_write.as_fd(),
    ];
    let (mut connection, ..) = pod.exec("c", "cat; echo end", false, &fds);
    drop((input_read, output_write));
    std::fs::File::from(input).write_all(b"piped\n").unwrap();
    let mut text = String::new();
    std::fs::File::from(output)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "piped\nend\n");
    assert!(matches!(
        connection.next_reply().unwrap().0,
        Reply::ExecExited {
            code: 0,
            signal: None
        }
    ));
    // A terminal, resized through the monitor.
    let (mut connection, exec_id, _, fds) = pod.exec("c", "read line; stty size", true, &[]);
    let resize = Request::Resize {
        container: "c".into(),
        exec_id: Some(exec_id),
        rows: 33,
        cols: 77,
    };
    pod.connect().call(&resize, &[]).unwrap();
    let mut master = std::fs::File::from(fds.into_iter().next().unwrap());
    master.write_all(b"\n").unwrap();
    assert!(matches!(
        connection.next_reply().unwrap().0,
        Reply::ExecExited { code: 0, .. }
    ));
    let mut text = Vec::new();
    let _ = master.read_to_end(&mut text);
    assert!(String::from_utf8_lossy(&text).contains("33 77"), "{text:?}");
    pod.shutdown();
}

#[test]
fn root_closing_an_exec_s_connection_kills_all_of_it() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    pod.launch(&pod.container("c", "sleep 1000"));
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    // Its child leaves it and would live on.
    let script = "(sleep 2000 &) ; sleep 2000";
    let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
    let (connection, _, pid, _) = pod.exec("c", script, false, &fds);
    let sleeping = || {
        let cgroups = pod.cgroups();
        let count = |path: &std::path::PathBuf| {
            let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            text.lines().count()
        };
        cgroups
            .iter()
            .filter(|path| path.starts_with(pod.cgroup_path().join("c")))
            .map(count)
            .sum::<usize>()
    };
    wait_until("the session runs", || sleeping() >= 4);
    drop(connection);
    wait_until("the session is gone", || sleeping() == 2);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    wait_until("its cgroup is gone", || pod.cgroups().len() == 3);
    assert!(pod.state().containers[0].exit.is_none());
    pod.shutdown();
}

#[test]
fn root_attach_feeds_stdin_once_and_gets_the_output() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let mut container = pod.container("c", "cat; echo done");
    (container.stdin, container.stdin_once) = (true, true);
    pod.launch(&container);
    let (input_read, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (output, output_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut connection = pod.connect();
    let request = Request::Attach {
        container: "c".into(),
        stdin: true,
        stdout: true,
        stderr: false,
    };
    connection
        .call(&request, &[input_read.as_fd(), output_write.as_fd()])
        .unwrap();
    drop((input_read, output_write));
    std::fs::File::from(input).write_all(b"typed\n").unwrap();
    let mut text = String::new();
    std::fs::File::from(output)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "typed\ndone\n");
    assert!(matches!(
        connection.next_reply().unwrap().0,
        Reply::AttachEnded
    ));
    assert_eq!(pod.exit_of("c").code, 0);
    assert!(pod.log_text("c").contains("stdout F typed"));
    pod.shutdown();
}

#[test]
fn root_a_terminal_container_is_attached_and_resized() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let mut container = pod.container("c", "read line; stty size; echo got $line");
    (container.tty, container.stdin) = (true, true);
    pod.edit("c", |spec| spec["process"]["terminal"] = true.into());
    pod.launch(&container);
    let resize = Request::Resize {
        container: "c".into(),
        exec_id: None,
        rows: 21,
        cols: 99,
    };
    pod.connect().call(&resize, &[]).unwrap();
    let (input_read, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (output, output_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut connection = pod.connect();
    let request = Request::Attach {
        container: "c".into(),
        stdin: true,
        stdout: true,
        stderr: false,
    };
    connection
        .call(&request, &[input_read.as_fd(), output_write.as_fd()])
        .unwrap();
    drop((input_read, output_write));
    std::fs::File::from(input).write_all(b"word\n").unwrap();
    let mut text = String::new();
    std::fs::File::from(output)
        .read_to_string(&mut text)
        .unwrap();
    assert!(
        text.contains("21 99") && text.contains("got word"),
        "{text}"
    );
    assert_eq!(pod.exit_of("c").code, 0);
    pod.shutdown();
}

#[test]
fn root_a_stalled_log_delays_neither_exec_nor_exit() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    // A terminal whose other side nobody reads takes some kilobytes and then lets writers wait, as a hung disk does.
    let stalled = berth_sys::pty::open().unwrap();
    let name = rustix::pty::ptsname(&stalled.master, Vec::new()).unwrap();
    let mut flood = pod.container("flood", "seq 1 100000; sleep 1000");
    flood.log_path = Some(name.to_str().unwrap().into());
    pod.launch(&flood);
    let mut victim = pod.container("victim", "echo one; sleep 1000");
    victim.log_path = Some(name.to_str().unwrap().into());
    pod.launch(&victim);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = std::time::Instant::now();
    assert_eq!(pod.exec_output("victim", "echo two"), ("two\n".into(), 0));
    let mut events = pod.connect();
    let last = pod.state().last_event;
    events
        .call(&Request::Subscribe { after: last }, &[])
        .unwrap();
    pod.signal("victim", 9, true);
    let exited = events.next_event().unwrap();
    assert!(matches!(exited.kind, EventKind::Exited(record) if record.container == "victim"));
    println!("exec and exit beside a stalled log: {:?}", before.elapsed());
    // Both ends closed, the writer gets an error and the monitor can end.
    drop(stalled);
    pod.shutdown();
}
