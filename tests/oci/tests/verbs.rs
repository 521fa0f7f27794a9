//! Verbs and flags as engines call them.

use std::fs;
use std::process::Command;

use berth_test_harness::{Need, test};
use berth_test_oci::{Bundle, Container};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

fn running(bundle: &Bundle) -> anyhow::Result<Container<'_>> {
    let container = bundle.container()?;
    container.create()?.expect_ok()?;
    container.call(&["start", "ID"])?.expect_ok()?;
    Ok(container)
}

fn parsed(text: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(text)?)
}

#[test]
fn root_list_and_ps_tell_what_engines_read() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = running(&bundle)?;
        let state = parsed(&container.call(&["state", "ID"])?.expect_ok()?.stdout)?;
        let pid = state["pid"].to_string();
        let rows = parsed(
            &container
                .call(&["list", "--format", "json"])?
                .expect_ok()?
                .stdout,
        )?;
        assert_eq!(rows[0]["id"], json!(container.id));
        assert_eq!(rows[0]["owner"], "root");
        assert_eq!(rows[0]["pid"].to_string(), pid);
        let table = container.call(&["list"])?.expect_ok()?.stdout;
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0],
            ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        );
        assert_eq!(
            lines[1][..3],
            [container.id.as_str(), pid.as_str(), "running"]
        );
        let ids = container
            .call(&["ps", "--format", "json", "ID"])?
            .expect_ok()?
            .stdout;
        assert_eq!(ids, format!("[{pid}]\n"));
        let table = container
            .call(&["ps", "ID", "-eo", "pid,args"])?
            .expect_ok()?
            .stdout;
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2, "{table}");
        assert!(lines[1].contains("testinit wait"), "{table}");
        // one damaged container does not hide the others
        fs::create_dir(bundle.state().join("damaged"))?;
        fs::write(bundle.state().join("damaged/state.json"), "{")?;
        let output = container.call(&["list", "--quiet"])?.expect_ok()?;
        assert_eq!(output.stdout.trim(), container.id);
        assert!(
            output.stderr.contains("`damaged` is left out"),
            "{}",
            output.stderr
        );
        Ok(())
    });
}

#[test]
fn root_errors_have_the_words_that_engines_look_for() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let container = bundle.container()?;
        let log = bundle.folder().join("log.json");
        let log = log.display().to_string();
        let logged = |args: &[&str]| -> anyhow::Result<String> {
            let _ = fs::remove_file(&log);
            let all = ["--log", &log, "--log-format", "json"];
            let all: Vec<&str> = all.into_iter().chain(args.iter().copied()).collect();
            let said = container.call(&all)?.expect_failure()?;
            let text = fs::read_to_string(&log)?;
            let line = parsed(text.lines().last().unwrap_or_default())?;
            assert_eq!(line["level"], "error", "{line}");
            assert!(
                line["time"]
                    .as_str()
                    .is_some_and(|time| time.ends_with('Z')),
                "{line}"
            );
            let message = line["msg"].as_str().unwrap_or_default().to_owned();
            assert!(said.contains(&message), "{said}");
            Ok(message)
        };
        for verb in ["state", "start", "kill", "delete", "pause", "ps"] {
            let message = logged(&[verb, "ID"])?;
            assert!(
                message.starts_with("container does not exist"),
                "{verb}: {message}"
            );
        }
        container.create()?.expect_ok()?;
        let message = logged(&["create", "ID"])?;
        assert!(
            message.contains("container with given ID already exists"),
            "{message}"
        );
        container.call(&["start", "ID"])?.expect_ok()?;
        container.until("stopped")?;
        for args in [
            &["kill", "ID"][..],
            &["exec", "ID", "x"],
            &["pause", "ID"],
            &["update", "ID"],
        ] {
            let message = logged(args)?;
            assert!(
                message.contains("container not running"),
                "{args:?}: {message}"
            );
        }
        assert!(logged(&["kill", "--no-such-flag", "ID"])?.starts_with("unknown flag"));
        // as runc: nobody is left to be signalled, which is no error
        container.call(&["kill", "--all", "ID", "9"])?.expect_ok()?;
        container.call(&["delete", "ID"])?.expect_ok()?;
        let message = logged(&["checkpoint", "--image-path", "/x", "ID"])?;
        assert!(
            message.starts_with("checkpoint is not supported"),
            "{message}"
        );
        Ok(())
    });
}

#[test]
fn root_programs_that_cannot_run_are_told_as_runc_does() {
    test(NEEDS, || {
        for (program, text) in [
            ("nosuch", "exec: \"nosuch\": "),
            ("nosuch", "executable file not found in $PATH"),
            (
                "/nosuch",
                "exec: \"/nosuch\": ENOENT (no such file or directory)",
            ),
            (
                "/etc/file",
                "exec: \"/etc/file\": EACCES (permission denied)",
            ),
        ] {
            let mut bundle = Bundle::new(PROBE, &[])?;
            fs::write(bundle.root().join("etc/file"), "")?;
            bundle.spec["process"]["args"] = json!([program]);
            let output = bundle.run()?;
            assert_eq!(output.code, 1);
            assert!(output.stderr.contains(text), "{program}: {}", output.stderr);
            bundle.spec["process"]["args"] = json!(["/bin/testinit", "wait"]);
            let container = running(&bundle)?;
            let output = container.call(&["exec", "ID", program])?;
            assert_eq!(output.code, 255);
            assert!(
                output
                    .stderr
                    .contains("exec failed: unable to start container process: ")
            );
            assert!(output.stderr.contains(text), "{program}: {}", output.stderr);
        }
        Ok(())
    });
}

#[test]
fn root_descriptors_reach_the_program() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?;
        let passed = bundle.folder().join("passed");
        fs::write(&passed, "")?;
        let passed = passed.display().to_string();
        let container = bundle.container()?;
        // a shell opens 3 and tells who is meant, as systemd does
        let activated = |variables: &str, flags: &str| -> anyhow::Result<_> {
            let script =
                format!("exec 3<\"$3\"; {variables} exec \"$0\" --root \"$1\" run {flags} \"$2\"");
            let output = Command::new("sh")
                .args(["-c", &script])
                .arg(berth_test_oci::runtime())
                .arg(bundle.state())
                .arg(&container.id)
                .arg(&passed)
                .current_dir(bundle.folder())
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok((serde_json::from_str::<berth_test_oci::Report>(&text), said))
        };
        let (report, _) = activated("LISTEN_PID=$$ LISTEN_FDS=1", "")?;
        let report = report?;
        assert_eq!(report.fds[&3], passed);
        assert!(
            report.env.contains(&"LISTEN_FDS=1".to_owned()),
            "{:?}",
            report.env
        );
        assert!(report.env.contains(&"LISTEN_PID=1".to_owned()));
        let (report, _) = activated("LISTEN_PID=1 LISTEN_FDS=1", "")?;
        assert!(!report?.fds.contains_key(&3), "meant for another process");
        let (report, _) = activated("", "--preserve-fds 1")?;
        assert_eq!(report?.fds[&3], passed);
        let (report, said) = activated("", "--preserve-fds 2")?;
        assert!(
            report.is_err() && said.contains("preserve descriptor 4"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn root_flags_of_exec_change_the_process() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        fs::write(bundle.root().join("etc/passwd"), "me:x:7:7::/home/me:\n")?;
        let container = running(&bundle)?;
        let report = |flags: &[&str]| -> anyhow::Result<_> {
            let args = ["exec"]
                .iter()
                .chain(flags)
                .chain(&["ID", "/bin/testinit", "report"]);
            container
                .call(&args.copied().collect::<Vec<_>>())?
                .expect_ok()?
                .report()
        };
        let as_root = report(&[
            "--cap",
            "CAP_NET_RAW",
            "-e",
            "B=2",
            "-g",
            "5",
            "--cwd",
            "/tmp",
        ])?;
        // CHOWN 0, KILL 5, SETUID 7 of the bundle, and NET_RAW 13; nothing ambient or inheritable
        assert_eq!(as_root.status["CapEff"], "00000000000020a1");
        assert_eq!(as_root.status["CapBnd"], "00000000000020a1");
        assert_eq!(as_root.status["CapAmb"], "0000000000000000");
        assert_eq!(as_root.status["CapInh"], "0000000000000000");
        assert_eq!(as_root.status["Groups"].trim(), "5");
        assert_eq!(as_root.cwd, "/tmp");
        assert!(as_root.env.contains(&"B=2".to_owned()));
        assert!(
            as_root.env.contains(&"HOME=/".to_owned()),
            "{:?}",
            as_root.env
        );
        let as_me = report(&["--user", "7:8"])?;
        assert_eq!(as_me.status["Gid"], "8\t8\t8\t8");
        assert!(
            as_me.env.contains(&"HOME=/home/me".to_owned()),
            "{:?}",
            as_me.env
        );
        let file = bundle.folder().join("process.json");
        let process = json!({"user": {"uid": 7, "gid": 7}, "cwd": "/", "env": ["HOME=/x"],
            "args": ["/bin/testinit", "report"]});
        fs::write(&file, process.to_string())?;
        let by_file = container.call(&["exec", "--process", &file.display().to_string(), "ID"])?;
        let by_file = by_file.expect_ok()?.report()?;
        assert_eq!(by_file.env, ["HOME=/x"]);
        assert_eq!(by_file.status["Uid"], "7\t7\t7\t7");
        Ok(())
    });
}

#[test]
fn root_flags_of_exec_that_mean_nothing_are_refused() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = running(&bundle)?;
        for (flags, word) in [
            (&["--cap", "CAP_NONSENSE"][..], "is not a capability"),
            (&["--cgroup", "../x"], "contains `..`"),
            (&["--cgroup", "no/such"], "cannot open"),
            (&["--cgroup", "memory:x"], "names a controller"),
            (&["--console-socket", "/x"], "without a terminal"),
        ] {
            let args = ["exec"]
                .iter()
                .chain(flags)
                .chain(&["ID", "/bin/testinit", "report"]);
            let output = container.call(&args.copied().collect::<Vec<_>>())?;
            assert_eq!(output.code, 255);
            assert!(output.stderr.contains(word), "{flags:?}: {}", output.stderr);
        }
        Ok(())
    });
}

#[test]
fn root_an_exec_meets_a_paused_container_by_the_flag_only() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = running(&bundle)?;
        container.call(&["pause", "ID"])?.expect_ok()?;
        let said = container
            .call(&["exec", "ID", "/bin/testinit", "exit", "0"])?
            .expect_failure()?;
        assert!(said.contains("cannot exec in a paused container"), "{said}");
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let waiting = scope.spawn(|| {
                container.call(&[
                    "exec",
                    "--ignore-paused",
                    "ID",
                    "/bin/testinit",
                    "exit",
                    "4",
                ])
            });
            // longer than an exec without the flag looks for a sign of life
            std::thread::sleep(std::time::Duration::from_millis(1500));
            assert!(!waiting.is_finished());
            container.call(&["resume", "ID"])?.expect_ok()?;
            let output = waiting.join().expect("no panic")?;
            assert_eq!(output.code, 4, "{output:?}");
            Ok(())
        })
    });
}

#[test]
fn root_an_exec_into_a_frozen_group_fails_and_says_so() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = running(&bundle)?;
        let text = fs::read_to_string(bundle.state().join(&container.id).join("state.json"))?;
        let group = parsed(&text)?["cgroup"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        fs::create_dir(format!("{group}/below"))?;
        fs::write(format!("{group}/below/cgroup.freeze"), "1")?;
        let args = [
            "exec",
            "--cgroup",
            "below",
            "ID",
            "/bin/testinit",
            "exit",
            "0",
        ];
        let output = container.call(&args)?;
        assert_eq!(output.code, 255);
        assert!(
            output.stderr.contains("the group is frozen"),
            "{}",
            output.stderr
        );
        fs::write(format!("{group}/below/cgroup.freeze"), "0")?;
        let report =
            container.call(&["exec", "--cgroup", "below", "ID", "/bin/testinit", "report"])?;
        assert_eq!(report.expect_ok()?.report()?.cgroup, "0::/below");
        Ok(())
    });
}

#[test]
fn root_a_root_without_pivot_and_with_the_callers_keyring() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["list", "/"])?;
        let container = bundle.container()?;
        let plain = container.call(&["run", "ID"])?.expect_ok()?.stdout;
        let moved = container
            .call(&["run", "--no-pivot", "--no-new-keyring", "ID"])?
            .expect_ok()?
            .stdout;
        assert_eq!(moved, plain);
        Ok(())
    });
}

#[test]
fn root_events_tell_figures_and_end_with_the_container() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = running(&bundle)?;
        let once = parsed(
            &container
                .call(&["events", "--stats", "ID"])?
                .expect_ok()?
                .stdout,
        )?;
        assert_eq!(
            (&once["type"], &once["id"]),
            (&json!("stats"), &json!(container.id))
        );
        assert!(once["data"]["cpu"]["usage"]["user"].is_u64(), "{once}");
        assert_eq!(once["data"]["intel_rdt"], json!({}));
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let stream = scope.spawn(|| container.call(&["events", "--interval", "20ms", "ID"]));
            std::thread::sleep(std::time::Duration::from_millis(200));
            container.call(&["kill", "ID", "KILL"])?.expect_ok()?;
            let output = stream.join().expect("no panic")?.expect_ok()?.stdout;
            assert!(output.lines().count() >= 2, "{output}");
            Ok(())
        })
    });
}

#[test]
fn root_templates_run() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?;
        let container = bundle.container()?;
        fs::remove_file(bundle.folder().join("config.json"))?;
        container.call(&["spec"])?.expect_ok()?;
        container.call(&["spec"])?.expect_failure()?;
        let file = bundle.folder().join("config.json");
        let mut spec = parsed(&fs::read_to_string(&file)?)?;
        assert_eq!(spec["ociVersion"], "1.3.0");
        spec["process"]["args"] = json!(["/bin/testinit", "report"]);
        spec["process"]["terminal"] = json!(false);
        fs::write(&file, spec.to_string())?;
        for folder in ["dev", "sys"] {
            fs::create_dir_all(bundle.root().join(folder))?;
        }
        let report = container.call(&["run", "ID"])?.expect_ok()?.report()?;
        assert_eq!(report.hostname, "berth");
        Ok(())
    });
}
