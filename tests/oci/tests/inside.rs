//! What a container's process finds around itself.

use std::fs;
use std::os::fd::AsRawFd;

use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use serde_json::json;

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

#[test]
fn root_every_namespace_is_its_own() {
    test(NEEDS, || {
        let report = Bundle::new(PROBE, &["report"])?
            .run()?
            .expect_ok()?
            .report()?;
        for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
            let host = fs::read_link(format!("/proc/self/ns/{kind}"))?;
            assert_ne!(
                report.namespaces[kind],
                host.display().to_string(),
                "{kind}"
            );
        }
        assert_eq!(
            (report.pid, report.hostname.as_str(), report.cgroup.as_str()),
            (1, "probe", "0::/")
        );
        Ok(())
    });
}

#[test]
fn root_the_loopback_device_of_its_own_network_is_up() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["print", "/sys/class/net/lo/flags"])?;
        let told = bundle.run()?.expect_ok()?.stdout;
        assert_eq!(told, "0x9\n"); // IFF_UP and IFF_LOOPBACK of netdevice(7)
        Ok(())
    });
}

#[test]
fn root_privilege_is_exactly_what_the_spec_grants() {
    test(NEEDS, || {
        let granted = "00000000000000a1"; // CHOWN 0, KILL 5, SETUID 7
        let report = Bundle::new(PROBE, &["report"])?
            .run()?
            .expect_ok()?
            .report()?;
        let of = |key: &str| report.status[key].clone();
        for (key, value) in [
            ("CapInh", "0000000000000000"),
            ("CapPrm", granted),
            ("CapEff", granted),
            ("CapBnd", granted),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "0"),
            ("Uid", "0\t0\t0\t0"),
            ("Groups", ""),
            ("Umask", "0022"),
            ("SigBlk", "0000000000000000"),
            ("SigIgn", "0000000000001000"), // SIGPIPE: Rust's own start code ignores it in the probe
        ] {
            assert_eq!(of(key), value, "{key}");
        }
        Ok(())
    });
}

#[test]
fn root_another_user_has_no_capability_but_ambient_ones() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            spec["process"]["user"] =
                json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o077});
            spec["process"]["rlimits"] =
                json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
            spec["process"]["oomScoreAdj"] = json!(500);
        });
        let report = bundle.run()?.expect_ok()?.report()?;
        let of = |key: &str| report.status[key].clone();
        assert_eq!(
            (of("CapEff"), of("CapAmb")),
            ("0".repeat(16), "0".repeat(16))
        );
        assert_eq!(
            (of("Uid"), of("Gid"), of("Groups")),
            (
                "1000\t1000\t1000\t1000".into(),
                "1001\t1001\t1001\t1001".into(),
                "7 8".into()
            )
        );
        assert_eq!(
            (of("Umask"), report.oom_score_adj.as_str()),
            ("0077".into(), "500")
        );
        assert_eq!(
            report.limits["Max open files"],
            ("100".into(), "200".into())
        );
        let bundle = bundle.with(|spec| {
            for set in [
                "bounding",
                "effective",
                "permitted",
                "inheritable",
                "ambient",
            ] {
                spec["process"]["capabilities"][set] = json!(["CAP_NET_BIND_SERVICE"]);
            }
        });
        let report = bundle.run()?.expect_ok()?.report()?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(report.status[set], "0000000000000400", "{set}");
        }
        Ok(())
    });
}

#[test]
fn root_nothing_of_the_caller_comes_along() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report", "x"])?;
        let container = bundle.container()?;
        // A descriptor without close-on-exec, as a careless caller would leak it.
        let leaked = fs::File::open("/etc/passwd")?;
        let inherited = rustix::io::fcntl_getfd(&leaked)? - rustix::io::FdFlags::CLOEXEC;
        rustix::io::fcntl_setfd(&leaked, inherited)?;
        let output = container.call_with(&["run", "ID"], |command| {
            command.env("SECRET", "of the caller");
        })?;
        let report = output.expect_ok()?.report()?;
        assert!(leaked.as_raw_fd() > 2);
        assert_eq!(
            report.fds.keys().copied().collect::<Vec<_>>(),
            [0, 1, 2],
            "{:?}",
            report.fds
        );
        // HOME is what the runtime finds in the passwd file, as runc does
        assert_eq!(report.env, ["PATH=/bin", "A=1", "HOME=/"]);
        assert_eq!(report.args, ["report", "x"]);
        // Mount points, the fifth column; the fourth names the root's place in its own file system.
        let points: Vec<_> = report
            .mounts
            .iter()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        assert!(
            points
                .iter()
                .all(|point| !point.starts_with("/tmp") && !point.contains("run")),
            "{points:?}"
        );
        assert_eq!(points.first(), Some(&"/"));
        Ok(())
    });
}

#[test]
fn root_masked_paths_are_empty_and_read_only_paths_refuse() {
    test(NEEDS, || {
        let errno = |number: i32| format!("errno {number}\n");
        let rows: &[(&[&str], String)] = &[
            (&["read", "/proc/keys"], "0 bytes\n".into()),
            (&["read", "/proc/timer_list"], "0 bytes\n".into()),
            (&["list", "/sys/firmware"], "0 entries\n".into()),
            (&["write", "/sys/firmware/x"], errno(30)),
            (&["write", "/proc/sys/kernel/core_pattern"], errno(30)),
            (&["write", "/proc/irq/default_smp_affinity"], errno(30)),
            (&["write", "/sys/kernel/uevent_helper"], errno(30)),
            (&["write", "/file"], "ok\n".into()),
            (&["unshare"], errno(1)),
        ];
        let mut bundle = Bundle::new(PROBE, &[])?;
        for (request, answer) in rows {
            let mut args = vec!["/bin/testinit"];
            args.extend_from_slice(request);
            bundle.spec["process"]["args"] = json!(args);
            assert_eq!(bundle.run()?.expect_ok()?.stdout, *answer, "{request:?}");
        }
        bundle.spec["root"]["readonly"] = json!(true);
        bundle.spec["process"]["args"] = json!(["/bin/testinit", "write", "/file2"]);
        assert_eq!(bundle.run()?.expect_ok()?.stdout, errno(30));
        Ok(())
    });
}

#[test]
fn root_default_devices_and_links_are_there() {
    test(NEEDS, || {
        let paths = [
            "null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr",
            "ptmx",
        ];
        let paths: Vec<String> = paths.iter().map(|name| format!("/dev/{name}")).collect();
        let mut args = vec!["stat"];
        args.extend(paths.iter().map(String::as_str));
        let output = Bundle::new(PROBE, &args)?.run()?.expect_ok()?;
        let expected = "/dev/null char 1:3 666 0:0\n/dev/zero char 1:5 666 0:0\n/dev/full char 1:7 666 0:0\n\
            /dev/random char 1:8 666 0:0\n/dev/urandom char 1:9 666 0:0\n/dev/tty char 5:0 666 0:0\n\
            /dev/fd -> /proc/self/fd 777 0:0\n/dev/stdin -> /proc/self/fd/0 777 0:0\n\
            /dev/stdout -> /proc/self/fd/1 777 0:0\n/dev/stderr -> /proc/self/fd/2 777 0:0\n\
            /dev/ptmx -> pts/ptmx 777 0:0\n";
        assert_eq!(output.stdout, expected);
        Ok(())
    });
}

#[test]
fn root_seccomp_is_in_force_with_and_without_no_new_privs() {
    test(NEEDS, || {
        for no_new_privs in [true, false] {
            let bundle = Bundle::new(PROBE, &["unshare"])?.with(|spec| {
                spec["process"]["noNewPrivileges"] = json!(no_new_privs);
                for set in ["bounding", "effective", "permitted"] {
                    spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
                }
                spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]});
            });
            assert_eq!(bundle.run()?.expect_ok()?.stdout, "errno 77\n");
            let bundle =
                bundle.with(|spec| spec["process"]["args"] = json!(["/bin/testinit", "report"]));
            let report = bundle.run()?.expect_ok()?.report()?;
            assert_eq!(
                (
                    report.status["Seccomp"].as_str(),
                    report.status["CapEff"].as_str()
                ),
                ("2", "0000000000200000")
            );
        }
        Ok(())
    });
}
