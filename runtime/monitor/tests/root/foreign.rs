//! Containers made by another OCI runtime's program.

use berth_monitor::protocol::*;

use crate::pod::{Pod, skipped, wait_until};

#[test]
fn root_another_runtime_s_program_makes_containers() {
    if skipped() {
        return;
    }
    let Some(binary) = other_runtime() else {
        println!("skipped: no other runtime is installed that works with this host's cgroups");
        return;
    };
    let pod = Pod::start();
    let container = foreign(&pod, binary, "echo from another runtime; read line; exit 5");
    let root = pod.base.join("state");
    pod.launch(&container);
    wait_until("it logs", || {
        pod.log_text("c").contains("stdout F from another runtime")
    });
    assert_eq!(pod.exec_output("c", "echo in; exit 9"), ("in\n".into(), 9));
    let (mut connection, _, _, fds) = pod.exec("c", "test -t 0 && echo tty", true, &[]);
    assert!(matches!(
        connection.next_reply().unwrap().0,
        Reply::ExecExited { code: 0, .. }
    ));
    assert_eq!(fds.len(), 1);
    pod.connect()
        .call(
            &Request::CloseStdin {
                container: "c".into(),
            },
            &[],
        )
        .unwrap();
    let record = pod.exit_of("c");
    assert_eq!((record.code, record.error), (5, None));
    assert!(
        std::fs::read_dir(&root).map_or(0, Iterator::count) == 0,
        "the runtime's state is gone"
    );
    pod.shutdown();
}

/// A container of another runtime over an overlay.
fn foreign(pod: &Pod, binary: std::path::PathBuf, script: &str) -> LaunchContainer {
    let mut container = pod.container("c", script);
    let Rootfs::Path(lower) = container.rootfs else {
        panic!("not a path")
    };
    let (upper, work) = (pod.base.join("upper"), pod.base.join("work"));
    std::fs::create_dir_all(&upper).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    container.rootfs = Rootfs::Overlay {
        lower: vec![lower],
        upper,
        work,
        readonly: false,
    };
    container.stdin = true;
    pod.edit("c", |spec| {
        // On a hybrid host runc would make it in every hierarchy and leave the parents there.
        spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    let root = pod.base.join("state");
    container.launcher = LauncherKind::Command {
        binary,
        root,
        systemd_cgroup: false,
    };
    container
}

#[test]
fn root_another_runtime_s_failure_comes_in_its_own_words_and_leaves_nothing() {
    if skipped() {
        return;
    }
    let Some(binary) = other_runtime() else {
        println!("skipped: no other runtime is installed that works with this host's cgroups");
        return;
    };
    let pod = Pod::start();
    let container = foreign(&pod, binary, "true");
    pod.edit("c", |spec| {
        spec["process"]["args"] = serde_json::json!(["/no/such/program"])
    });
    assert_eq!(
        pod.kind_of_failure(&Request::Launch(container)),
        ErrorKind::Launch
    );
    assert!(pod.state().containers.is_empty());
    pod.shutdown();
}

/// runc, or crun where it can work: it refuses a hybrid host whose cgroup2 has a controller.
fn other_runtime() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let find = |name: &str| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|path| path.exists())
    };
    let hybrid = berth_oci::cgroup::Host::probe()
        .ok()?
        .mount
        .ends_with("unified");
    find("runc").or_else(|| find("crun").filter(|_| !hybrid))
}
