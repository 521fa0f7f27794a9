//! Hooks: where they run, what they read, and what their failure means (runtime.md, "Lifecycle").

use std::fs;
use std::path::Path;
use std::process::Stdio;

use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn root_hooks_run_in_the_namespaces_of_their_kind() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let said = bundle.folder().join("said");
        // the mount namespace, and whether the pid in the state is that of the program's process
        let tell = |name: &str| {
            let file = said.display();
            json!([shell(&format!(
                "pid=$(cat | grep -o '\"pid\":[0-9]*' | cut -d: -f2); \
                 echo {name} $(readlink /proc/self/ns/mnt) $(readlink /proc/$pid/ns/uts) >>{file}"
            ))])
        };
        let bundle = bundle.with(|spec| {
            spec["hooks"] = json!({
                "prestart": tell("prestart"), "createRuntime": tell("createRuntime"),
                "createContainer": tell("createContainer"), "poststart": tell("poststart"),
                "poststop": tell("poststop"),
            });
            spec["process"]["args"] = json!(["/bin/testinit", "wait"]);
        });
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        let state: Value = serde_json::from_str(&container.call(&["state", "ID"])?.stdout)?;
        let place = |of: &str, kind| fs::read_link(format!("/proc/{of}/ns/{kind}"));
        let pid = state["pid"].to_string();
        let (host, inside) = (place("self", "mnt")?, place(&pid, "mnt")?);
        let uts = place(&pid, "uts")?;
        container.call(&["start", "ID"])?.expect_ok()?;
        container.call(&["delete", "--force", "ID"])?.expect_ok()?;
        let all = lines(&said);
        let find = |name: &str| -> Vec<String> {
            let line = all.iter().find(|line| line.split(' ').next() == Some(name));
            let words = line.map(|line| line.split(' ').map(str::to_owned).collect());
            words.unwrap_or_default()
        };
        for name in ["prestart", "createRuntime", "poststart"] {
            let expected = [
                name.into(),
                host.display().to_string(),
                uts.display().to_string(),
            ];
            assert_eq!(find(name), expected, "{all:?}");
        }
        assert_eq!(
            find("createContainer")[1],
            inside.display().to_string(),
            "{all:?}"
        );
        assert_eq!(find("poststop")[1], host.display().to_string(), "{all:?}");
        Ok(())
    });
}

#[test]
fn root_hooks_run_in_the_bundle_or_the_root_wherever_the_caller_is() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let said = bundle.folder().join("said");
        let tell = |name: &str| {
            let file = said.display();
            // the container's root lies over the host's there: its path does not tell the two apart
            let place = "test -e bin/testinit && echo root || pwd";
            json!([shell(&format!("echo {name} $({place}) $(cat) >>{file}"))])
        };
        let bundle = bundle.with(|spec| {
            for name in [
                "prestart",
                "createRuntime",
                "createContainer",
                "poststart",
                "poststop",
            ] {
                spec["hooks"][name] = tell(name);
            }
        });
        let container = bundle.container()?;
        let folder = bundle.folder().display().to_string();
        let start = ["run", "--detach", "--bundle", &folder, "ID"];
        for verb in [&start[..], &["delete", "--force", "ID"]] {
            let nowhere = container.call_with(verb, |command| {
                command.current_dir("/").stdout(Stdio::null());
                command.stderr(Stdio::null());
            })?;
            nowhere.expect_ok()?;
        }
        let all = lines(&said);
        let said: Vec<_> = all.iter().map(|line| line.splitn(3, ' ')).collect();
        let said: Vec<Vec<&str>> = said.into_iter().map(Iterator::collect).collect();
        let places: Vec<_> = said.iter().map(|words| (words[0], words[1])).collect();
        let expected = [
            ("prestart", folder.as_str()),
            ("createRuntime", &folder),
            ("createContainer", "root"),
            ("poststart", &folder),
            ("poststop", &folder),
        ];
        assert_eq!(places, expected);
        for words in said {
            let state: Value = serde_json::from_str(words[2])?;
            assert_eq!(state["pid"].is_u64(), words[0] != "poststop", "{state}");
        }
        Ok(())
    });
}

#[test]
fn root_a_failing_hook_ends_the_container_and_poststop_follows() {
    test(NEEDS, || {
        for kind in [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
        ] {
            let bundle = Bundle::new(PROBE, &["wait"])?;
            let said = bundle.folder().join("said");
            let failing = match kind {
                "startContainer" => json!({"path": "/bin/testinit", "args": ["x", "exit", "3"]}),
                _ => shell("echo because >&2; exit 3"),
            };
            let bundle = bundle.with(|spec| {
                spec["hooks"] = json!({
                    kind: [failing, shell(&format!("echo never >>{}", said.display()))],
                    "poststop": [shell("exit 1"), shell(&format!("echo poststop >>{}", said.display()))],
                });
            });
            let container = bundle.container()?;
            let created = container.create()?;
            let (verb, output) = match kind {
                "startContainer" | "poststart" => {
                    created.expect_ok()?;
                    ("start", container.call(&["start", "ID"])?)
                }
                _ => ("create", created),
            };
            let told = output.expect_failure()?;
            assert!(
                told.contains("failed (exit status: 3)"),
                "{kind}: {verb}: {told}"
            );
            assert!(
                told.contains(&format!("error running {kind} hook #0: ")),
                "{told}"
            );
            assert_eq!(lines(&said), ["poststop"], "{kind}: {told}");
            assert!(
                told.contains("failed (exit status: 1)"),
                "{kind}: poststop is told: {told}"
            );
            assert!(
                fs::read_dir(bundle.state())?.next().is_none(),
                "{kind}: state is left"
            );
        }
        Ok(())
    });
}

#[test]
fn root_a_hook_that_takes_too_long_is_killed() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?.with(|spec| {
            let mut slow = shell("exec sleep 1000");
            slow["timeout"] = json!(1);
            spec["hooks"] = json!({"createRuntime": [slow]});
        });
        let said = bundle.run()?.expect_failure()?;
        assert!(said.contains("did not end within 1 s"), "{said}");
        assert!(fs::read_dir(bundle.state())?.next().is_none());
        Ok(())
    });
}

#[test]
fn root_what_poststop_says_does_not_fail_the_delete() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?.with(|spec| {
            spec["hooks"] = json!({"poststop": [shell("exit 4")]});
        });
        let output = bundle.run()?.expect_ok()?;
        assert!(
            output.stderr.contains("failed (exit status: 4)"),
            "{}",
            output.stderr
        );
        Ok(())
    });
}
