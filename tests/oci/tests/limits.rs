//! Limits that the kernel enforces: on cgroup v2 with its controllers, and by AppArmor.

use std::fs;
use std::path::PathBuf;

use berth_test_harness::{Need, test};
use berth_test_oci::{Bundle, Container, Profile};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2Controllers, Need::Program("ldd")];
const MIB: u64 = 1 << 20;

fn limited(args: &[&str], resources: &Value) -> anyhow::Result<Bundle> {
    let cgroup = json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    });
    Ok(Bundle::new(PROBE, args)?.with(|spec| {
        spec["linux"]["resources"] = resources.clone();
        spec["mounts"].as_array_mut().expect("mounts").push(cgroup);
    }))
}

#[test]
fn root_limits_are_seen_from_inside() {
    test(NEEDS, || {
        let files = [
            "memory.max",
            "memory.swap.max",
            "cpu.max",
            "cpu.weight",
            "pids.max",
            "cpuset.cpus",
        ];
        let paths: Vec<String> = files.map(|file| format!("/sys/fs/cgroup/{file}")).into();
        let args: Vec<&str> = ["print"]
            .into_iter()
            .chain(paths.iter().map(String::as_str))
            .collect();
        let bundle = limited(
            &args,
            &json!({
                "memory": {"limit": 64 * MIB, "swap": 64 * MIB},
                "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024, "cpus": "0"},
                "pids": {"limit": 20},
            }),
        )?;
        let output = bundle.run()?.expect_ok()?;
        assert_eq!(output.stdout, "67108864\n0\n50000 100000\n100\n20\n0\n");
        Ok(())
    });
}

#[test]
fn root_memory_above_the_limit_kills() {
    test(NEEDS, || {
        let limits = json!({"memory": {"limit": 32 * MIB, "swap": 32 * MIB}});
        let within = limited(&["use", "8388608"], &limits)?.run()?.expect_ok()?;
        assert_eq!(within.stdout, "8388608 filled\n");
        let above = limited(&["use", "67108864"], &limits)?.run()?;
        assert_eq!((above.code, above.stdout.as_str()), (137, ""), "{above:?}");
        Ok(())
    });
}

#[test]
fn root_threads_above_the_limit_are_refused() {
    test(NEEDS, || {
        let limits = json!({"pids": {"limit": 5}});
        let output = limited(&["threads", "10"], &limits)?.run()?.expect_ok()?;
        // the first task is the program itself; 11 is EAGAIN
        assert_eq!(output.stdout, "4 started, errno 11\n");
        Ok(())
    });
}

#[test]
fn root_devices_that_are_not_allowed_cannot_be_opened() {
    test(NEEDS, || {
        for (allowed, answer) in [(true, "ok\n"), (false, "errno 1\n")] {
            let rules = json!({"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": allowed, "type": "c", "major": 1, "minor": 11, "access": "w"},
            ]});
            let bundle = limited(&["write", "/dev/kmsg"], &rules)?.with(|spec| {
                spec["linux"]["devices"] =
                    json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
            });
            assert_eq!(bundle.run()?.expect_ok()?.stdout, answer);
        }
        Ok(())
    });
}

fn cgroup_of(bundle: &Bundle, container: &Container<'_>) -> anyhow::Result<PathBuf> {
    let text = fs::read_to_string(bundle.state().join(&container.id).join("state.json"))?;
    let record: Value = serde_json::from_str(&text)?;
    Ok(record["cgroup"].as_str().unwrap_or_default().into())
}

fn running(bundle: &Bundle) -> anyhow::Result<Container<'_>> {
    let container = bundle.container()?;
    container.create()?.expect_ok()?;
    container.call(&["start", "ID"])?.expect_ok()?;
    Ok(container)
}

#[test]
fn root_an_update_changes_only_what_it_names() {
    test(NEEDS, || {
        let limits = json!({"memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "pids": {"limit": 20},
            "cpu": {"quota": 50_000, "period": 100_000, "burst": 10_000}});
        let bundle = limited(&["wait"], &limits)?;
        let container = running(&bundle)?;
        let files = [
            "memory.max",
            "memory.swap.max",
            "pids.max",
            "cpu.max",
            "cpu.max.burst",
        ];
        let seen = || -> anyhow::Result<Vec<String>> {
            let group = cgroup_of(&bundle, &container)?;
            let read = |file| Ok(fs::read_to_string(group.join(file))?.trim().to_owned());
            files.into_iter().map(read).collect()
        };
        assert_eq!(
            seen()?,
            ["67108864", "33554432", "20", "50000 100000", "10000"]
        );
        let flags = ["update", "--memory", "48m", "--pids-limit", "9", "ID"];
        container.call(&flags)?.expect_ok()?;
        assert_eq!(
            seen()?,
            ["50331648", "50331648", "9", "50000 100000", "10000"]
        );
        // quota and burst bound each other, up and down
        let cpu = |quota: &str, burst: &str| {
            container.call(&["update", "--cpu-quota", quota, "--cpu-burst", burst, "ID"])
        };
        cpu("5000", "4000")?.expect_ok()?;
        assert_eq!(seen()?[3..], ["5000 100000", "4000"]);
        cpu("80000", "70000")?.expect_ok()?;
        assert_eq!(seen()?[3..], ["80000 100000", "70000"]);
        let file = bundle.folder().join("limits.json");
        fs::write(
            &file,
            r#"{"memory":{"limit":4096,"swap":8192,"checkBeforeUpdate":true}}"#,
        )?;
        let file = file.display().to_string();
        let said = container
            .call(&["update", "-r", &file, "ID"])?
            .expect_failure()?;
        assert!(
            said.contains("linux.resources.memory.limit: 4096 is below"),
            "{said}"
        );
        assert_eq!(seen()?[0], "50331648");
        let refused = container
            .call(&["update", "--cpu-rt-runtime", "5", "ID"])?
            .expect_failure()?;
        assert!(refused.contains("cpu.realtimeRuntime"), "{refused}");
        Ok(())
    });
}

#[test]
fn root_events_tell_limits_and_use() {
    test(NEEDS, || {
        let limits = json!({"memory": {"limit": 48 * MIB}, "pids": {"limit": 9}});
        let bundle = limited(&["wait"], &limits)?;
        let container = running(&bundle)?;
        let stats = container
            .call(&["events", "--stats", "ID"])?
            .expect_ok()?
            .stdout;
        let stats: Value = serde_json::from_str(&stats)?;
        assert_eq!(stats["data"]["memory"]["usage"]["limit"], 48 * MIB);
        assert_eq!(stats["data"]["pids"], json!({"current": 1, "limit": 9}));
        Ok(())
    });
}

#[test]
fn root_an_update_replaces_the_device_filter() {
    test(NEEDS, || {
        let rules = |allowed: bool| {
            json!({"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": allowed, "type": "c", "major": 1, "minor": 11, "access": "w"},
            ]})
        };
        let bundle = limited(&["wait"], &rules(false))?.with(|spec| {
            spec["linux"]["devices"] =
                json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
        });
        let container = running(&bundle)?;
        let write = || container.call(&["exec", "ID", "/bin/testinit", "write", "/dev/kmsg"]);
        assert_eq!(write()?.expect_ok()?.stdout, "errno 1\n");
        let file = bundle.folder().join("limits.json");
        let path = file.display().to_string();
        for (allowed, answer) in [(true, "ok\n"), (false, "errno 1\n"), (true, "ok\n")] {
            fs::write(&file, rules(allowed).to_string())?;
            container
                .call(&["update", "--resources", &path, "ID"])?
                .expect_ok()?;
            assert_eq!(write()?.expect_ok()?.stdout, answer);
        }
        Ok(())
    });
}

#[test]
fn root_an_exec_joins_init_where_the_workload_governs_its_groups() {
    test(NEEDS, || {
        let bundle = limited(&["wait"], &json!({}))?;
        let container = running(&bundle)?;
        let group = cgroup_of(&bundle, &container)?;
        let inner = group.join("inner");
        fs::create_dir(&inner)?;
        let init = fs::read_to_string(group.join("cgroup.procs"))?;
        fs::write(inner.join("cgroup.procs"), init.trim())?;
        fs::write(group.join("cgroup.subtree_control"), "+pids")?;
        let call = |flags: &[&str]| {
            let args = ["exec"].iter().chain(flags);
            let args = args.chain(&["ID", "/bin/testinit", "report"]);
            container.call(&args.copied().collect::<Vec<_>>())
        };
        assert_eq!(call(&[])?.expect_ok()?.report()?.cgroup, "0::/inner");
        assert_eq!(
            call(&["--cgroup", "inner"])?.expect_ok()?.report()?.cgroup,
            "0::/inner"
        );
        // the very group was asked for, and it can hold no process
        let said = call(&["--cgroup", "/"])?.expect_failure()?;
        assert!(said.contains("EBUSY"), "{said}");
        assert!(
            container
                .call(&["ps", "-f", "json", "ID"])?
                .expect_ok()?
                .stdout
                .contains(init.trim())
        );
        Ok(())
    });
}

#[test]
fn root_an_apparmor_profile_confines_the_program() {
    let needs = [
        Need::Root,
        Need::AppArmor,
        Need::Program("apparmor_parser"),
        Need::Program("ldd"),
    ];
    test(&needs, || {
        let name = "berth-test-no-tmp";
        let _profile = Profile::load(&format!(
            "profile {name} flags=(attach_disconnected) {{\n  file,\n  capability,\n  \
             signal,\n  deny /tmp/** w,\n}}\n"
        ))?;
        let confined = |args: &[&str], profile: &str| {
            let bundle = Bundle::new(PROBE, args)?;
            let profile = json!(profile);
            bundle
                .with(|spec| spec["process"]["apparmorProfile"] = profile)
                .run()
        };
        let label = confined(&["print", "/proc/self/attr/apparmor/current"], name)?.expect_ok()?;
        assert_eq!(label.stdout, format!("{name} (enforce)\n"));
        for (path, answer) in [("/tmp/x", "errno 13\n"), ("/etc/x", "ok\n")] {
            assert_eq!(
                confined(&["write", path], name)?.expect_ok()?.stdout,
                answer
            );
        }
        let failure = confined(&["report"], "berth-test-absent")?.expect_failure()?;
        assert!(failure.contains("berth-test-absent"), "{failure}");
        Ok(())
    });
}
