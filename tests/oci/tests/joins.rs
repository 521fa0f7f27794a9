//! Namespaces that a container joins or gets besides the usual ones, as its own processes see them.

use std::fs;

use berth_test_harness::{Host, Need, test};
use berth_test_oci::{Bundle, Container, Report};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

/// Starts a container that waits, and returns the process id of its init.
fn hold(container: &Container<'_>) -> anyhow::Result<String> {
    container.create()?.expect_ok()?;
    container.call(&["start", "ID"])?.expect_ok()?;
    let state = container.call(&["state", "ID"])?.expect_ok()?;
    let state: Value = serde_json::from_str(&state.stdout)?;
    Ok(state["pid"].to_string())
}

fn is_in(report: &Report, pid: &str, kind: &str) -> anyhow::Result<bool> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
    Ok(report.namespaces[kind] == link.to_string_lossy())
}

#[test]
fn root_namespaces_of_one_process_are_joined_together() {
    test(NEEDS, || {
        let holder = Bundle::new(PROBE, &["wait"])?;
        let holding = holder.container()?;
        let pid = hold(&holding)?;
        let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            spec["linux"]["namespaces"] = json!([
                {"type": "network", "path": path("net")}, {"type": "ipc", "path": path("ipc")},
                {"type": "uts", "path": path("uts")}, {"type": "pid", "path": path("pid")},
                {"type": "cgroup", "path": path("cgroup")}, {"type": "mount"},
            ]);
        });
        let report = bundle.run()?.expect_ok()?.report()?;
        for kind in ["net", "ipc", "uts", "pid", "cgroup"] {
            assert!(is_in(&report, &pid, kind)?, "{kind}");
        }
        assert!(!is_in(&report, &pid, "mnt")?);
        assert_ne!(report.pid, 1);
        Ok(())
    });
}

#[test]
fn root_a_joined_mount_namespace_is_used_as_it_is() {
    test(NEEDS, || {
        let holder = Bundle::new(PROBE, &["wait"])?;
        fs::write(holder.root().join("etc/of-the-first"), "x")?;
        let holding = holder.container()?;
        let pid = hold(&holding)?;
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            let path = format!("/proc/{pid}/ns/mnt");
            spec["linux"]["namespaces"] = json!([
                {"type": "mount", "path": path}, {"type": "pid", "path": format!("/proc/{pid}/ns/pid")},
                {"type": "uts"},
            ]);
        });
        let error = bundle.run()?.expect_failure()?;
        for field in ["mounts:", "linux.maskedPaths:", "linux.readonlyPaths:"] {
            assert!(error.contains(field), "{error}");
        }
        let mut bundle = bundle.with(|spec| {
            spec["mounts"] = json!([]);
            spec["linux"]["maskedPaths"] = json!([]);
            spec["linux"]["readonlyPaths"] = json!([]);
        });
        let report = bundle.run()?.expect_ok()?.report()?;
        assert!(is_in(&report, &pid, "mnt")?);
        bundle.spec["process"]["args"] = json!(["/bin/testinit", "stat", "/etc/of-the-first"]);
        let output = bundle.run()?.expect_ok()?;
        assert!(
            output.stdout.contains("/etc/of-the-first file"),
            "{output:?}"
        );
        Ok(())
    });
}

/// Seconds since boot, as `/proc/uptime` has them.
fn uptime(text: &str) -> anyhow::Result<f64> {
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

#[test]
fn root_a_time_namespace_shifts_the_clocks() {
    test(NEEDS, || {
        const DAYS: f64 = 864_000.0;
        let bundle = Bundle::new(PROBE, &["print", "/proc/uptime"])?.with(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut();
            namespaces.expect("namespaces").push(json!({"type": "time"}));
            spec["linux"]["timeOffsets"] =
                json!({"boottime": {"secs": DAYS as i64}, "monotonic": {"secs": -1, "nanosecs": 5}});
        });
        let inside = uptime(&bundle.run()?.expect_ok()?.stdout)?;
        let outside = uptime(&fs::read_to_string("/proc/uptime")?)?;
        assert!(
            (inside - outside - DAYS).abs() < DAYS / 2.0,
            "{inside}, {outside}"
        );
        let mut bundle = bundle;
        bundle.spec["process"]["args"] =
            json!(["/bin/testinit", "print", "/proc/self/timens_offsets"]);
        let output = bundle.run()?.expect_ok()?;
        let words: Vec<&str> = output.stdout.split_whitespace().collect();
        assert_eq!(words, ["monotonic", "-1", "5", "boottime", "864000", "0"]);
        Ok(())
    });
}

#[test]
fn root_a_time_namespace_is_joined_and_execs_are_in_it() {
    test(NEEDS, || {
        let timed = |spec: &mut Value, namespace: Value| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut();
            namespaces.expect("namespaces").push(namespace);
        };
        let holder = Bundle::new(PROBE, &["wait"])?.with(|spec| {
            timed(spec, json!({"type": "time"}));
            spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 5000}});
        });
        let holding = holder.container()?;
        let pid = hold(&holding)?;
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            timed(
                spec,
                json!({"type": "time", "path": format!("/proc/{pid}/ns/time")}),
            );
        });
        assert!(is_in(&bundle.run()?.expect_ok()?.report()?, &pid, "time")?);
        let exec = holding.call(&["exec", "ID", "/bin/testinit", "report"])?;
        assert!(is_in(&exec.expect_ok()?.report()?, &pid, "time")?);
        Ok(())
    });
}

#[test]
fn root_a_network_device_goes_to_the_container_with_its_addresses() {
    test(&[NEEDS, &[Need::Program("ip")]].concat(), || {
        Host::isolated(|host| {
            for words in [
                "link add berth-a type veth peer name berth-b",
                "addr add 10.231.7.1/24 dev berth-a",
                "addr add fd00:231::7/64 dev berth-a nodad",
                "link set berth-a up",
            ] {
                host.run("ip", &words.split(' ').collect::<Vec<_>>())?;
            }
            let files = ["/proc/net/dev", "/proc/net/if_inet6", "/proc/net/fib_trie"];
            let bundle = Bundle::new(PROBE, &[&["print"], &files[..]].concat())?.with(|spec| {
                spec["linux"]["netDevices"] = json!({"berth-a": {"name": "inside0"}});
            });
            let inside = bundle.run()?.expect_ok()?.stdout;
            for part in ["inside0:", "fd000231000000000000000000000007", "10.231.7.1"] {
                assert!(inside.contains(part), "{inside}");
            }
            // It went with the container's namespace.
            let error = bundle.run()?.expect_failure()?;
            assert!(
                error.contains("berth-a") && error.contains("ENODEV"),
                "{error}"
            );
            Ok(())
        })
    });
}
