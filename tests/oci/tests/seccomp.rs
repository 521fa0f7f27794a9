//! Seccomp filters as a container's process meets them: every action, flags, and a listener.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::Context;
use berth_sys::notify;
use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

/// What the test's listener answers: a directory of this name is refused.
const REFUSED: i32 = 99;

/// A bundle whose program makes directories under `profile`.
fn bundle(profile: Value) -> anyhow::Result<Bundle> {
    let bundle = Bundle::new(PROBE, &["mkdir", "/tmp/a", "/tmp/b"])?;
    Ok(bundle.with(|spec| spec["linux"]["seccomp"] = profile))
}

#[test]
fn root_a_filter_that_forbids_execve_and_exit_lets_the_start_fail_with_its_reason() {
    test(NEEDS, || {
        for allowed in [&["write"][..], &["write", "exit_group"]] {
            let bundle = bundle(json!({"defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]}))?;
            let told = bundle.run()?.expect_failure()?;
            let reason = "exec: \"/bin/testinit\": E"; // EPERM, or ENOSYS where no rule is as new as execve
            assert!(told.contains(reason), "{allowed:?}: {told}");
            assert!(fs::read_dir(bundle.state())?.next().is_none());
        }
        Ok(())
    });
}

#[test]
fn root_every_action_does_what_its_name_says() {
    test(NEEDS, || {
        // action, error number, exit code, output
        let rows = [
            ("SCMP_ACT_ALLOW", None, 0, "ok\nok\n"),
            ("SCMP_ACT_LOG", None, 0, "ok\nok\n"),
            ("SCMP_ACT_ERRNO", None, 0, "errno 1\nerrno 1\n"),
            ("SCMP_ACT_ERRNO", Some(77), 0, "errno 77\nerrno 77\n"),
            ("SCMP_ACT_TRACE", None, 0, "errno 38\nerrno 38\n"), // no tracer: ENOSYS
            ("SCMP_ACT_TRAP", None, 128 + 31, ""),
            ("SCMP_ACT_KILL_PROCESS", None, 128 + 31, ""),
            ("SCMP_ACT_KILL_THREAD", None, 128 + 31, ""),
            ("SCMP_ACT_KILL", None, 128 + 31, ""),
        ];
        for (action, errno, code, output) in rows {
            let mut rule = json!({"names": ["mkdir", "mkdirat"], "action": action});
            if let Some(errno) = errno {
                rule["errnoRet"] = json!(errno);
            }
            let bundle = bundle(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule],
                "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}),
            )?;
            let told = bundle.run()?;
            assert_eq!(
                (told.code, told.stdout.as_str()),
                (code, output),
                "{action}: {told:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn root_a_default_errno_is_returned_for_what_no_rule_names() {
    test(NEEDS, || {
        let mut allowed: Vec<String> = include_str!("../../../runtime/oci/src/seccomp/default.txt")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        allowed.retain(|name| name != "mkdir" && name != "mkdirat");
        allowed.extend(["clone", "socket", "personality"].map(str::to_owned));
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 55,
            "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]});
        let told = bundle(profile)?.run()?.expect_ok()?;
        assert_eq!(told.stdout, "errno 55\nerrno 55\n");
        Ok(())
    });
}

/// Takes one process: its state and the filter's descriptor.
fn accept(listener: &UnixListener) -> anyhow::Result<(Value, OwnedFd)> {
    let (socket, _) = listener.accept()?;
    let (mut text, mut fds) = (Vec::new(), Vec::new());
    while receive(&socket, &mut text, &mut fds)? > 0 {}
    anyhow::ensure!(fds.len() == 1, "{} descriptors", fds.len());
    Ok((serde_json::from_slice(&text)?, fds.remove(0)))
}

fn receive(
    socket: &UnixStream,
    text: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> anyhow::Result<usize> {
    let mut part = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let slices = &mut [IoSliceMut::new(&mut part)];
    let length = rustix::net::recvmsg(socket, slices, &mut control, flags)?.bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    text.extend_from_slice(&part[..length]);
    Ok(length)
}

/// Answers `count` calls: refuses the first, lets the others go on.
fn decide(filter: &OwnedFd, count: usize) -> anyhow::Result<()> {
    for turn in 0..count {
        let call = notify::receive(filter).context("receive")?;
        notify::answer(filter, call.id, (turn == 0).then_some(REFUSED)).context("answer")?;
    }
    Ok(())
}

fn notifying(path: &std::path::Path, names: &[&str]) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "of the test",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]})
}

#[test]
fn root_a_listener_is_told_who_asks_and_decides() {
    test(NEEDS, || {
        for no_new_privs in [true, false] {
            let bundle = bundle(json!(null))?;
            let path = bundle.folder().join("agent");
            let listener = UnixListener::bind(&path)?;
            let bundle = bundle.with(|spec| {
                spec["linux"]["seccomp"] = notifying(&path, &["mkdir", "mkdirat"]);
                spec["annotations"] = json!({"of": "the container"});
                spec["process"]["noNewPrivileges"] = json!(no_new_privs);
            });
            let container = bundle.container()?;
            let (told, state) = std::thread::scope(|scope| {
                let agent = scope.spawn(|| {
                    let (state, filter) = accept(&listener)?;
                    decide(&filter, 2)?;
                    anyhow::Ok(state)
                });
                let told = container.call(&["run", "ID"]);
                (told, agent.join())
            });
            let state = state.map_err(|_| anyhow::anyhow!("the agent panicked"))??;
            assert_eq!(told?.expect_ok()?.stdout, "errno 99\nok\n");
            assert_eq!(state["fds"], json!(["seccompFd"]));
            assert_eq!(state["metadata"], "of the test");
            assert_eq!(state["state"]["id"], json!(container.id));
            assert_eq!(state["state"]["annotations"]["of"], "the container");
            assert_eq!(state["state"]["bundle"], json!(bundle.folder()));
            assert_eq!(state["pid"], state["state"]["pid"]);
            assert!(fs::exists(bundle.root().join("tmp/b"))?);
        }
        Ok(())
    });
}

#[test]
fn root_the_runtimes_own_calls_do_not_wait_for_the_listener_and_an_exec_has_one_too() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let path = bundle.folder().join("agent");
        let listener = UnixListener::bind(&path)?;
        // All that a runtime could need between filter and program, but execve and write.
        let names = [
            "read",
            "sendmsg",
            "recvmsg",
            "sendto",
            "close",
            "close_range",
            "fcntl",
            "dup",
            "socket",
            "connect",
            "openat",
            "mkdir",
        ];
        let bundle = bundle.with(|spec| spec["linux"]["seccomp"] = notifying(&path, &names));
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        let (started, first) = std::thread::scope(|scope| {
            // It takes the descriptor and decides nothing.
            let agent = scope.spawn(|| accept(&listener));
            (container.call(&["start", "ID"]), agent.join())
        });
        started?.expect_ok()?;
        let (state, _held) = first.map_err(|_| anyhow::anyhow!("the agent panicked"))??;
        assert_eq!(state["state"]["status"], "created");
        let init = state["pid"].clone();
        let (told, state) = std::thread::scope(|scope| {
            let agent = scope.spawn(|| {
                let (state, filter) = accept(&listener)?;
                // The loader and the probe call these; the thread ends with the process.
                while let Ok(call) = notify::receive(&filter) {
                    let _ = notify::answer(&filter, call.id, None);
                }
                anyhow::Ok(state)
            });
            let told = container.call(&["exec", "ID", "/bin/testinit", "echo", "hello"]);
            (told, agent.join())
        });
        assert_eq!(told?.expect_ok()?.stdout, "hello\n");
        let state = state.map_err(|_| anyhow::anyhow!("the agent panicked"))??;
        assert_eq!(state["state"]["pid"], init);
        assert_ne!(state["pid"], init);
        assert_eq!(state["state"]["id"], json!(container.id));
        assert_eq!(state["state"]["status"], "running");
        Ok(())
    });
}

#[test]
fn root_without_its_listener_nothing_runs() {
    test(NEEDS, || {
        let bundle = bundle(json!(null))?;
        let path = bundle.folder().join("nobody");
        let bundle = bundle.with(|spec| spec["linux"]["seccomp"] = notifying(&path, &["mkdir"]));
        let error = bundle.run()?.expect_failure()?;
        assert!(error.contains("nobody"), "{error}");
        assert!(!fs::exists(bundle.root().join("tmp/a"))?);
        for wrong in [
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": path}),
            notifying(&path, &["write"]),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
        ] {
            let bundle = Bundle::new(PROBE, &["report"])?
                .with(|spec| spec["linux"]["seccomp"] = wrong.clone());
            let error = bundle.run()?.expect_failure()?;
            assert!(error.contains("linux.seccomp"), "{error}");
        }
        Ok(())
    });
}
