//! The verbs, in and out of order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_oci::cgroup::{Cgroup, Host};
use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use serde_json::json;

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

#[test]
fn root_a_container_lives_and_leaves_nothing() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = bundle.container()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        container.create()?.expect_ok()?;
        assert_eq!(container.status()?, "created");
        assert_eq!(
            fs::read_to_string("/proc/self/mountinfo")?.lines().count(),
            mounts.lines().count()
        );
        container.create()?.expect_failure()?;
        container.call(&["delete", "ID"])?.expect_failure()?;
        container.call(&["start", "ID"])?.expect_ok()?;
        assert_eq!(container.status()?, "running");
        container.call(&["start", "ID"])?.expect_failure()?;
        container.call(&["delete", "ID"])?.expect_failure()?;
        container.call(&["pause", "ID"])?.expect_ok()?;
        assert_eq!(container.status()?, "paused");
        container.call(&["resume", "ID"])?.expect_ok()?;
        container.call(&["kill", "ID", "KILL"])?.expect_ok()?;
        container.until("stopped")?;
        container.call(&["kill", "ID", "KILL"])?.expect_failure()?;
        let record = fs::read_to_string(bundle.state().join(&container.id).join("state.json"))?;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        let cgroup = record["cgroup"]
            .as_str()
            .expect("the container has a cgroup")
            .to_owned();
        assert!(fs::exists(&cgroup)?);
        container.call(&["delete", "ID"])?.expect_ok()?;
        assert!(!fs::exists(&cgroup)?);
        container.call(&["state", "ID"])?.expect_failure()?;
        container.call(&["delete", "ID"])?.expect_failure()?;
        container.call(&["delete", "--force", "ID"])?.expect_ok()?;
        assert!(fs::read_dir(bundle.state())?.next().is_none());
        Ok(())
    });
}

#[test]
fn root_a_created_container_is_paused_and_resumed() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        container.call(&["pause", "ID"])?.expect_ok()?;
        assert_eq!(container.status()?, "paused");
        let said = container.call(&["start", "ID"])?.expect_failure()?;
        assert!(said.contains("cannot start a paused container"), "{said}");
        container.call(&["resume", "ID"])?.expect_ok()?;
        assert_eq!(container.status()?, "created");
        container.call(&["start", "ID"])?.expect_ok()?;
        container.until("stopped")
    });
}

#[test]
fn root_a_container_that_lost_a_file_of_its_state_is_still_ended() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = bundle.container()?;
        let state = bundle.state().join(&container.id);
        for (file, verb, tells) in [
            (
                "state.json",
                ["delete", "--force", "ID"],
                "has no `state.json`",
            ),
            ("config.json", ["kill", "ID", "KILL"], ""),
        ] {
            container.create()?.expect_ok()?;
            container.call(&["start", "ID"])?.expect_ok()?;
            container.call(&["kill", "ID", "0"])?.expect_ok()?;
            let record: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(state.join("state.json"))?)?;
            fs::remove_file(state.join(file))?;
            let said = container.call(&verb)?.expect_ok()?.stderr;
            assert!(said.contains(tells), "{said}");
            let init = format!("/proc/{}/exe", record["pid"]);
            for _ in 0..1000 {
                if fs::read_link(&init).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(fs::read_link(&init).is_err(), "{file}: init is left");
            container.call(&["delete", "--force", "ID"])?.expect_ok()?;
            let group = record["cgroup"].as_str().unwrap_or_default();
            assert!(!fs::exists(group)?, "{file}: the group is left");
        }
        Ok(())
    });
}

#[test]
fn root_a_start_that_hangs_does_not_hold_up_delete_by_force() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?.with(|spec| {
            let hook = json!({"path": "/bin/testinit", "args": ["testinit", "wait"]});
            spec["hooks"] = json!({"startContainer": [hook]});
        });
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let hanging = scope.spawn(|| container.call(&["start", "ID"]));
            // the lock is held as soon as the hook runs, and the hook runs until it is killed
            let state: serde_json::Value =
                serde_json::from_str(&container.call(&["state", "ID"])?.stdout)?;
            let children = format!("/proc/{0}/task/{0}/children", state["pid"]);
            while fs::read_to_string(&children)?.is_empty() {
                std::thread::sleep(Duration::from_millis(10));
            }
            container.call(&["delete", "--force", "ID"])?.expect_ok()?;
            hanging.join().expect("no panic")?;
            container.call(&["state", "ID"])?.expect_failure()?;
            Ok(())
        })
    });
}

#[test]
fn root_a_group_that_is_not_the_containers_own_is_left_alone() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let name = bundle.folder().file_name().unwrap_or_default();
        let path = PathBuf::from(name);
        let host = Host::probe()?;
        let group = Cgroup::create(&host, &path)?;
        let below = Cgroup::create(&host, &path.join("below"))?;
        let mut foreign = Command::new("sleep").arg("100").spawn()?;
        below.add_process(foreign.id() as i32)?;
        let try_it = |wanted: &Path, reason: &str| -> anyhow::Result<()> {
            let bundle = Bundle::new(PROBE, &["exit", "0"])?
                .with(|spec| spec["linux"]["cgroupsPath"] = json!(Path::new("/").join(wanted)));
            let container = bundle.container()?;
            let said = container.call(&["run", "ID"])?.expect_failure()?;
            assert!(said.contains(reason), "{said}");
            assert!(fs::read_dir(bundle.state())?.next().is_none(), "{said}");
            Ok(())
        };
        try_it(&path, "container's cgroup is not empty")?;
        assert!(foreign.try_wait()?.is_none(), "it was killed");
        foreign.kill()?;
        foreign.wait()?;
        try_it(&path.join("cgroup.procs/x"), "ENOTDIR")?;
        group.freeze(true)?;
        try_it(&path, "container's cgroup unexpectedly frozen")?;
        // a frozen empty group is nobody's, and went with the create that was refused
        assert!(Cgroup::open(&host.mount.join(&path)).is_err());
        Ok(())
    });
}

#[test]
fn root_exit_codes_pass_through_run_and_exec() {
    test(NEEDS, || {
        let mut bundle = Bundle::new(PROBE, &["exit", "7"])?;
        assert_eq!(bundle.run()?.code, 7);
        bundle.spec["process"]["args"] = json!(["nosuch"]);
        let output = bundle.run()?;
        assert_eq!(output.code, 1);
        assert!(
            output.stderr.contains("executable file not found in $PATH"),
            "{}",
            output.stderr
        );
        bundle.spec["process"]["args"] = json!(["/bin/testinit", "wait"]);
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        container.call(&["start", "ID"])?.expect_ok()?;
        assert_eq!(
            container
                .call(&["exec", "ID", "/bin/testinit", "exit", "9"])?
                .code,
            9
        );
        assert_eq!(container.call(&["exec", "ID", "nosuch"])?.code, 255);
        assert_eq!(
            container
                .call(&["exec", "ID", "testinit", "echo", "found", "by", "path"])?
                .stdout,
            "found by path\n"
        );
        Ok(())
    });
}

#[test]
fn root_an_exec_has_the_rights_and_the_place_of_the_container() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?.with(|spec| {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]});
        });
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        container.call(&["start", "ID"])?.expect_ok()?;
        let state = container.call(&["state", "ID"])?.expect_ok()?.stdout;
        let state: serde_json::Value = serde_json::from_str(&state)?;
        let pid = state["pid"].as_i64().unwrap_or(0);
        let report = container
            .call(&["exec", "ID", "/bin/testinit", "report"])?
            .expect_ok()?
            .report()?;
        for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
            let init = fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
            assert_eq!(
                report.namespaces[kind],
                init.display().to_string(),
                "{kind}"
            );
        }
        let of = |key: &str| report.status[key].clone();
        assert_eq!(
            (of("CapEff"), of("CapInh"), of("CapBnd")),
            (
                "00000000000000a1".into(),
                "0".repeat(16),
                "00000000000000a1".into()
            )
        );
        assert_eq!((of("Seccomp"), of("NoNewPrivs")), ("2".into(), "1".into()));
        assert_eq!(report.cgroup, "0::/");
        assert_eq!(report.fds.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        // CVE-2024-21626 by --cwd
        container
            .call(&[
                "exec",
                "--cwd",
                "/proc/self/fd/7",
                "ID",
                "/bin/testinit",
                "report",
            ])?
            .expect_failure()?;
        // CVE-2026-30892
        container
            .call(&["exec", "--user", "1root", "ID", "/bin/testinit", "report"])?
            .expect_failure()?;
        let report = container
            .call(&["exec", "--user", "1", "ID", "/bin/testinit", "report"])?
            .expect_ok()?
            .report()?;
        assert_eq!(report.status["Uid"], "1\t1\t1\t1");
        Ok(())
    });
}

#[test]
fn root_a_reused_pid_is_not_taken_for_the_container() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        container.call(&["kill", "ID", "KILL"])?.expect_ok()?;
        container.until("stopped")?;
        let path = bundle.state().join(&container.id).join("state.json");
        let mut record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        record["pid"] = json!(std::process::id());
        fs::write(&path, record.to_string())?;
        assert_eq!(container.status()?, "stopped");
        container.call(&["kill", "ID", "KILL"])?.expect_failure()?;
        container.call(&["delete", "--force", "ID"])?.expect_ok()?;
        std::thread::sleep(Duration::from_millis(20)); // still here
        Ok(())
    });
}

#[test]
fn root_hooks_run_at_their_points_in_order() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["echo", "program"])?;
        let log = bundle.folder().join("hooks");
        let hook = |name: &str| {
            json!([{"path": "/bin/sh", "args": ["sh", "-c",
            format!("echo {name} $(cat | grep -o '\"status\":\"[a-z]*\"') >> {}", log.display())], "env": ["PATH=/bin:/usr/bin"], "timeout": 10}])
        };
        let bundle = bundle.with(|spec| {
            spec["hooks"] = json!({"prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
                "createContainer": hook("createContainer"), "poststart": hook("poststart"), "poststop": hook("poststop"),
                "startContainer": [{"path": "/bin/testinit", "args": ["testinit", "exit", "0"]}]});
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "program\n");
        let said = fs::read_to_string(&log)?;
        let said: Vec<&str> = said.lines().collect();
        let expected = [
            "prestart \"status\":\"creating\"",
            "createRuntime \"status\":\"creating\"",
            "createContainer \"status\":\"creating\"",
            "poststart \"status\":\"running\"",
            "poststop \"status\":\"stopped\"",
        ];
        assert_eq!(said, expected);
        let bundle = bundle.with(|spec| spec["hooks"] = json!({"startContainer": [{"path": "/bin/testinit", "args": ["testinit", "exit", "3"]}]}));
        let error = bundle.run()?.expect_failure()?;
        assert!(error.contains("hook `/bin/testinit` failed"), "{error}");
        assert!(fs::read_dir(bundle.state())?.next().is_none());
        Ok(())
    });
}
