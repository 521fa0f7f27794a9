//! The sandbox record: what the kernel reports is what was asked, and what differs does not start.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use berth_oci::cgroup::Host;
use berth_oci::fault::{OF_CONTAINERS, OF_LABELS, OF_PROCESSES, OF_USERS, VARIABLE};

use berth_sys::seccomp::{self, Instruction};
use berth_test_harness::{Need, test};
use berth_test_oci::{Bundle, Profile};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");

/// Every record that was written, one a line.
fn records(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

/// A spec that asks for something in every field.
fn full(bundle: Bundle) -> Bundle {
    let source = bundle.folder().join("data");
    fs::create_dir_all(&source).unwrap_or_else(|error| panic!("{error}"));
    let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024 }]);
    bundle.with(|spec| {
        spec["root"]["readonly"] = json!(true);
        let process = &mut spec["process"];
        process["user"] =
            json!({ "uid": 1000, "gid": 1001, "additionalGids": [7, 5], "umask": 0o27 });
        process["rlimits"] = limits;
        process["oomScoreAdj"] = json!(777);
        process["capabilities"]["ambient"] = json!(["CAP_KILL"]);
        process["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
        process["cwd"] = json!("/tmp");
        let mounts = spec["mounts"].as_array_mut();
        if let Some(mounts) = mounts {
            mounts.push(
                json!({ "destination": "/etc", "type": "bind", "source": source,
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"] }),
            );
        }
        let linux = &mut spec["linux"];
        linux["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "128" });
        linux["resources"] = json!({ "devices": [
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw" },
        ] });
        linux["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" }],
        });
    })
}

/// Without pipes, which a created container would keep open.
fn create(container: &berth_test_oci::Container<'_>, args: &[String]) -> anyhow::Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let created = container.call_with(&args, |command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    })?;
    anyhow::ensure!(created.code == 0, "{created:?}");
    Ok(())
}

#[test]
fn root_a_start_an_exec_and_an_update_match() {
    test(&[Need::Root, Need::CgroupV2, Need::Program("ldd")], || {
        let bundle = full(Bundle::new(PROBE, &["wait"])?);
        let file = bundle.folder().join("records");
        let file_text = file.display().to_string();
        let with = |args: &[&str]| -> Vec<String> {
            let all = ["--record", file_text.as_str()];
            all.iter().chain(args).map(ToString::to_string).collect()
        };
        let call = |container: &berth_test_oci::Container<'_>, args: &[&str]| {
            let args = with(args);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            container.call(&args)
        };
        let container = bundle.container()?;
        create(&container, &with(&["create", "ID"]))?;
        assert!(records(&file)?.is_empty(), "nothing has started yet");
        call(&container, &["start", "ID"])?.expect_ok()?;
        let of = ["exec", "--cwd", "/proc", "--user", "7:8", "ID"];
        let exec = [of.as_slice(), &["/bin/testinit", "echo", "hi"]].concat();
        let executed = call(&container, &exec)?.expect_ok()?;
        assert_eq!(executed.stdout, "hi\n");
        call(&container, &["update", "--pids-limit", "99", "ID"])?.expect_ok()?;
        let records = records(&file)?;
        let kinds: Vec<&str> = records
            .iter()
            .filter_map(|one| one["kind"].as_str())
            .collect();
        assert_eq!(kinds, ["start", "exec", "update"]);
        for record in &records {
            // What this host's cgroups do not enforce is named, and nothing else is weaker.
            let degraded = record["degraded"].as_array().cloned().unwrap_or_default();
            let weak = degraded.iter().filter_map(|one| one["field"].as_str());
            let other: Vec<&str> = weak.filter(|field| !field.starts_with("limits.")).collect();
            assert!(other.is_empty(), "{record:#}");
            assert_ne!(record["verdict"], "mismatch", "{record:#}");
            let text = record.to_string();
            assert!(
                !text.contains("A=1") && !text.contains("sha256:e3b0"),
                "{text}"
            );
        }
        let fields = &records[0]["fields"];
        assert_eq!(records[0]["read_at"], "exec-stop");
        assert_eq!(fields["uids"]["applied"]["effective"], 1000);
        assert_eq!(fields["seccomp"]["applied"]["mode"], "filter");
        assert_eq!(fields["seccomp"]["requested"], fields["seccomp"]["applied"]);
        assert_eq!(fields["sysctls"]["applied"]["net/ipv4/ip_forward"], "1");
        assert_eq!(
            fields["environment"]["applied"],
            json!({ "count": 3, "names": ["PATH", "A", "HOME"] })
        );
        assert_eq!(records[1]["fields"]["cwd"]["applied"], "/proc");
        assert_eq!(records[1]["fields"]["uids"]["applied"]["real"], 7);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file)?.permissions());
        assert_eq!(mode & 0o777, 0o600);
        Ok(())
    });
}

#[test]
fn root_what_cannot_be_recorded_is_not_started() {
    test(&[Need::Root, Need::Program("ldd")], || {
        let bundle = Bundle::new(PROBE, &["write", "/ran"])?;
        let container = bundle.container()?;
        let refused = container
            .call(&["--record", "/proc/no/such/file", "run", "ID"])?
            .expect_failure()?;
        assert!(refused.contains("open the record"), "{refused}");
        assert!(!bundle.root().join("ran").exists());
        let refused = container
            .call(&["--record", "/dev/full", "run", "ID"])?
            .expect_failure()?;
        assert!(refused.contains("write the record"), "{refused}");
        assert!(
            fs::read_dir(bundle.state())?.next().is_none(),
            "state is left"
        );
        Ok(())
    });
}

#[test]
fn root_a_set_user_id_entrypoint_keeps_its_right() {
    test(&[Need::Root, Need::CgroupV2, Need::Program("ldd")], || {
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            spec["process"]["noNewPrivileges"] = json!(false);
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        });
        let program = bundle.root().join("bin/testinit");
        std::os::unix::fs::chown(&program, Some(0), Some(7))?;
        fs::set_permissions(
            &program,
            std::os::unix::fs::PermissionsExt::from_mode(0o6755),
        )?;
        let container = bundle.container()?;
        let output = container.call(&["--record", "/dev/null", "run", "ID"])?;
        let report = output.expect_ok()?.report()?;
        assert_eq!(report.status["Uid"], "1000\t0\t0\t0", "{report:?}");
        assert_eq!(report.status["Gid"], "1000\t7\t7\t7");
        Ok(())
    });
}

#[test]
fn root_under_a_filter_of_its_own_the_runtime_looks_before_the_execve() {
    test(&[Need::Root, Need::CgroupV2, Need::Program("ldd")], || {
        let bundle = Bundle::new(PROBE, &["echo", "ran"])?;
        let container = bundle.container()?;
        let file = bundle.folder().join("records").display().to_string();
        let filtered = || {
            let everything = Instruction {
                code: 6, // BPF_RET | BPF_K
                jt: 0,
                jf: 0,
                k: 0x7fff_0000, // SECCOMP_RET_ALLOW
            };
            seccomp::load(&[everything], 0)?;
            container.call(&["--record", &file, "run", "ID"])
        };
        // For this thread and what it starts.
        let output = std::thread::scope(|scope| scope.spawn(filtered).join());
        let output = output.map_err(|_| anyhow::anyhow!("the thread died"))??;
        assert_eq!(output.expect_ok()?.stdout, "ran\n");
        let record = &records(Path::new(&file))?[0];
        assert_eq!(record["read_at"], "barrier");
        assert_eq!(record["verdict"], "degraded");
        assert_eq!(
            record["degraded"][0]["reason"],
            "exec-stop unavailable (the runtime has a seccomp filter of its own)"
        );
        Ok(())
    });
}

/// A runtime that does one thing other than planned, called by a shell which leaves descriptor 3 open.
fn faulty(runtime: &Path, bundle: &Bundle, fault: &str, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3</dev/null; exec \"$0\" \"$@\""])
        .arg(runtime)
        .arg("--root")
        .arg(bundle.state())
        .args(["--record", "/dev/null"])
        .args(args)
        .current_dir(bundle.folder())
        .stdin(Stdio::null())
        .env(VARIABLE, fault);
    Ok(command.output()?)
}

/// The refusal names the field, and the program did not run.
fn assert_refused(output: &Output, fault: &str, field: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{fault}: it started");
    assert!(output.stdout.is_empty(), "{fault}: the program ran");
    assert!(
        errors.contains("verify: compare the sandbox"),
        "{fault}: {errors}"
    );
    assert!(errors.contains(&format!("{field}: ")), "{fault}: {errors}");
}

#[test]
fn root_every_fault_refuses_the_start_and_the_exec() {
    test(&[Need::Root, Need::CgroupV2, Need::Program("ldd")], || {
        let bundle = full(Bundle::new(PROBE, &["echo", "ran"])?);
        let program = bundle.root().join("bin/testinit");
        fs::copy(&program, bundle.root().join("bin/other"))?;
        let path = format!("berth-test/faults-{}", std::process::id());
        let bundle = bundle.with(|spec| {
            spec["linux"]["cgroupsPath"] = json!(format!("/{path}"));
            spec["linux"]["resources"]["pids"] = json!({ "limit": 77 });
        });
        fs::write(bundle.folder().join("config.json"), bundle.spec.to_string())?;
        let host = Host::probe()?;
        let runtime = berth_test_oci::faulty(bundle.folder())?;
        let sound = faulty(&runtime, &bundle, "", &["run", "fault"])?;
        let errors = String::from_utf8_lossy(&sound.stderr);
        assert!(
            sound.status.success() && sound.stdout == b"ran\n",
            "{errors}"
        );
        for (fault, field) in OF_PROCESSES.iter().chain(&OF_CONTAINERS) {
            if field.starts_with("limits.pids") && !host.controllers.contains("pids") {
                println!("skipped: no pids controller in cgroup v2, for: {fault}");
                continue;
            }
            let output = faulty(&runtime, &bundle, fault, &["run", "fault"])?;
            assert_refused(&output, fault, field);
            let left = fs::read_dir(bundle.state())?.next().is_some();
            assert!(!left, "{fault}: state is left");
            let left = fs::exists(host.mount.join(&path))?;
            assert!(!left, "{fault}: the cgroup is left");
        }
        every_fault_refuses_the_exec()
    });
}

fn every_fault_refuses_the_exec() -> anyhow::Result<()> {
    let bundle = full(Bundle::new(PROBE, &["wait"])?);
    let bin = bundle.root().join("bin");
    fs::copy(bin.join("testinit"), bin.join("other"))?;
    let container = bundle.container()?;
    assert_eq!(container.create()?.code, 0);
    container.call(&["start", "ID"])?.expect_ok()?;
    let runtime = berth_test_oci::faulty(bundle.folder())?;
    let id = container.id.as_str();
    let exec = ["exec", id, "/bin/testinit", "echo", "ran"];
    let sound = faulty(&runtime, &bundle, "", &exec)?;
    assert_eq!(sound.stdout, b"ran\n", "{sound:?}");
    for (fault, field) in OF_PROCESSES {
        let output = faulty(&runtime, &bundle, fault, &exec)?;
        assert_refused(&output, fault, field);
    }
    Ok(())
}

#[test]
fn root_every_fault_of_a_user_namespace_refuses_the_start() {
    const FIRST: u32 = 100_000;
    test(&[Need::Root, Need::CgroupV2, Need::Program("ldd")], || {
        let bundle = Bundle::new(PROBE, &["echo", "ran"])?.with(|spec| {
            let linux = &mut spec["linux"];
            if let Some(namespaces) = linux["namespaces"].as_array_mut() {
                namespaces.push(json!({ "type": "user" }));
            }
            let map = json!([{ "containerID": 0, "hostID": FIRST, "size": 1000 }]);
            linux["uidMappings"] = map.clone();
            linux["gidMappings"] = map;
        });
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bundle.folder(), readable)?;
        refused_for(bundle, &OF_USERS)
    });
}

#[test]
fn root_a_profile_that_is_not_entered_refuses_the_start() {
    let needs = [
        Need::Root,
        Need::CgroupV2,
        Need::AppArmor,
        Need::Program("apparmor_parser"),
        Need::Program("ldd"),
    ];
    test(&needs, || {
        let name = "berth-test-record";
        let rules = "file,\n  capability,\n  signal,\n";
        let _profile = Profile::load(&format!(
            "profile {name} flags=(attach_disconnected) {{\n  {rules}}}\n"
        ))?;
        let bundle = Bundle::new(PROBE, &["echo", "ran"])?
            .with(|spec| spec["process"]["apparmorProfile"] = json!(name));
        refused_for(bundle, &OF_LABELS)
    });
}

/// Without a fault the program runs; with each of `faults` the start is refused by its field.
fn refused_for(bundle: Bundle, faults: &[(&str, &str)]) -> anyhow::Result<()> {
    fs::write(bundle.folder().join("config.json"), bundle.spec.to_string())?;
    let runtime = berth_test_oci::faulty(bundle.folder())?;
    let sound = faulty(&runtime, &bundle, "", &["run", "fault"])?;
    let errors = String::from_utf8_lossy(&sound.stderr);
    assert!(
        sound.status.success() && sound.stdout == b"ran\n",
        "{errors}"
    );
    for (fault, field) in faults {
        let output = faulty(&runtime, &bundle, fault, &["run", "fault"])?;
        assert_refused(&output, fault, field);
    }
    Ok(())
}

#[test]
fn root_what_the_kernel_shows_in_its_own_form_matches() {
    test(&[Need::Root, Need::CgroupV2, Need::Program("ldd")], || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?.with(|spec| {
            spec["linux"]["sysctl"] = json!({
                "net.ipv4.ip_local_reserved_ports": "3000,2000,2001",
                "net.ipv4.tcp_rmem": "4096 131072",
                "net.core.somaxconn": "077",
                "kernel.shmmax": "0x1000",
            });
            // what the tree brings along on /data/pts lies below what is asked for there
            let tree = json!({ "destination": "/data", "source": "/dev", "options": ["rbind"] });
            let above = json!({ "destination": "/data/pts", "type": "tmpfs", "source": "tmpfs",
                "options": ["ro", "nosuid"] });
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.extend([tree, above]);
            }
        });
        let file = bundle.folder().join("records");
        let text = file.display().to_string();
        let container = bundle.container()?;
        let run = ["--record", &text, "run", "ID"];
        container.call(&run)?.expect_ok()?;
        assert_ne!(records(&file)?[0]["verdict"], "mismatch");
        Ok(())
    });
}
