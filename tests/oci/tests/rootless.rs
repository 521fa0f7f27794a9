//! The runtime in the hands of an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_test_harness::{Need, test};
use berth_test_oci::{Bundle, Output, Report, runtime};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[
    Need::Root,
    Need::CgroupV2,
    Need::Program("ldd"),
    Need::Program("setpriv"),
];

/// The ordinary user, and its only group.
const USER: u32 = 54_321;

/// A bundle that belongs to the user, and a runtime that the user may execute.
struct Home(Bundle);

impl Home {
    /// A spec as a user may have it: its own id as root, the host's network.
    fn new(args: &[&str]) -> anyhow::Result<Home> {
        let bundle = Bundle::new(PROBE, args)?.with(|spec| {
            let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
            let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "user"];
            spec["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
        });
        fs::copy(runtime(), bundle.folder().join("berth-oci"))?;
        fs::create_dir(bundle.folder().join("run"))?;
        fs::set_permissions(bundle.folder(), fs::Permissions::from_mode(0o755))?;
        give(bundle.folder())?;
        Ok(Home(bundle))
    }

    /// Calls the runtime as the user; its processes start in `group`, if there is one.
    fn call(&self, args: &[&str], group: Option<&Path>) -> anyhow::Result<Output> {
        let folder = self.0.folder();
        fs::write(folder.join("config.json"), self.0.spec.to_string())?;
        let enter = group.map_or_else(
            || "true".to_owned(),
            |group| format!("echo $$ > {}/cgroup.procs", group.display()),
        );
        let id = format!("--reuid={USER} --regid={USER} --clear-groups");
        let script = format!(r#"{enter} && exec setpriv {id} ./berth-oci "$@""#);
        let log = folder.join("log");
        let output = Command::new("sh")
            .args(["-c", &script, "sh"])
            .args(args)
            .current_dir(folder)
            .env("XDG_RUNTIME_DIR", folder.join("run"))
            .stdin(Stdio::null())
            // A waiting container would hold a pipe open.
            .stderr(fs::File::create(&log)?)
            .stdout(fs::File::create(folder.join("output"))?)
            .status()?;
        Ok(Output {
            code: output.code().unwrap_or(-1),
            stdout: fs::read_to_string(folder.join("output"))?,
            stderr: fs::read_to_string(log)?,
        })
    }

    fn state(&self, id: &str) -> anyhow::Result<Value> {
        let output = self.call(&["state", id], None)?.expect_ok()?;
        Ok(serde_json::from_str(&output.stdout)?)
    }
}

/// Makes the user the owner of a folder and of everything in it.
fn give(path: &Path) -> anyhow::Result<()> {
    std::os::unix::fs::lchown(path, Some(USER), Some(USER))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}

/// The options of the mount at `point`, as this process has it.
fn options<'a>(report: &'a Report, point: &str) -> Vec<&'a str> {
    let mut lines = report.mounts.iter().map(|line| line.split(' '));
    let found = lines.find_map(|mut words| (words.nth(4) == Some(point)).then(|| words.next()));
    found.flatten().unwrap_or_default().split(',').collect()
}

#[test]
fn root_an_ordinary_user_runs_a_container() {
    test(NEEDS, || {
        let mut home = Home::new(&["report"])?;
        let output = home.call(&["run", "plain"], None)?.expect_ok()?;
        assert!(output.stderr.contains("no cgroup"), "{}", output.stderr);
        let report = output.report()?;
        assert_eq!(
            (report.pid, report.status["Uid"].as_str()),
            (1, "0\t0\t0\t0")
        );
        assert_eq!(report.hostname, "probe");
        assert_eq!(
            report.fds.keys().copied().collect::<Vec<_>>(),
            [0, 1, 2],
            "{:?}",
            report.fds
        );
        let own = fs::read_link("/proc/self/ns/net")?;
        assert_eq!(report.namespaces["net"], own.to_string_lossy());
        // sysfs needs a network namespace of one's own: the host's is shown, and cannot be changed.
        assert!(
            options(&report, "/sys").contains(&"ro"),
            "{:?}",
            report.mounts
        );
        home.0.spec["process"]["args"] = json!(["/bin/testinit", "stat", "/dev/null", "/etc"]);
        let output = home.call(&["run", "plain"], None)?.expect_ok()?;
        let expected = "/dev/null char 1:3 666 65534:65534\n/etc dir 755 0:0\n";
        assert_eq!(output.stdout, expected);
        assert_eq!(
            fs::read_dir(home.0.folder().join("run/berth-oci"))?.count(),
            0
        );
        Ok(())
    });
}

#[test]
fn root_an_ordinary_user_has_all_verbs_of_a_life() {
    test(NEEDS, || {
        let home = Home::new(&["wait"])?;
        home.call(&["create", "life"], None)?.expect_ok()?;
        assert_eq!(home.state("life")?["status"], "created");
        home.call(&["start", "life"], None)?.expect_ok()?;
        let state = home.state("life")?;
        assert_eq!(state["status"], "running");
        let exec = home.call(&["exec", "life", "/bin/testinit", "report"], None)?;
        let report = exec.expect_ok()?.report()?;
        assert_eq!(report.status["Uid"], "0\t0\t0\t0");
        assert_ne!(report.pid, 1);
        for kind in ["user", "mnt", "pid", "ipc", "uts", "cgroup"] {
            let of_init = fs::read_link(format!("/proc/{}/ns/{kind}", state["pid"]))?;
            assert_eq!(report.namespaces[kind], of_init.to_string_lossy(), "{kind}");
        }
        home.call(&["kill", "life", "KILL"], None)?.expect_ok()?;
        home.call(&["delete", "--force", "life"], None)?
            .expect_ok()?;
        home.call(&["state", "life"], None)?.expect_failure()?;
        Ok(())
    });
}

#[test]
fn root_without_privilege_a_user_namespace_is_asked_for_by_name() {
    test(NEEDS, || {
        let mut home = Home::new(&["report"])?;
        home.0.spec["linux"]["namespaces"] = json!([{"type": "mount"}]);
        home.0.spec["linux"]["uidMappings"] = json!([]);
        home.0.spec["linux"]["gidMappings"] = json!([]);
        home.0.spec["process"]["cwd"] = json!("relative");
        let error = home.call(&["run", "none"], None)?.expect_failure()?;
        for part in [
            "process.cwd",
            "linux.namespaces: a user namespace is needed",
        ] {
            assert!(error.contains(part), "{error}");
        }
        Ok(())
    });
}

/// A group of the host, removed at the end.
struct Group(PathBuf);

impl Group {
    fn delegated() -> anyhow::Result<Group> {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let mount = mounts
            .into_iter()
            .find(|mount| mount.join("cgroup.procs").exists());
        let mount = mount.ok_or_else(|| anyhow::anyhow!("no cgroup2 mount"))?;
        let path = mount.join(format!("berth-rootless-{}", std::process::id()));
        fs::create_dir(&path)?;
        for name in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ] {
            chown(path.join(name), Some(USER), Some(USER))?;
        }
        Ok(Group(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("berth"));
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn root_an_ordinary_user_gets_a_group_below_its_own() {
    test(NEEDS, || {
        let mut home = Home::new(&["wait"])?;
        home.0.spec["process"]["args"] = json!(["/bin/testinit", "wait"]);
        let group = Group::delegated()?;
        let output = home
            .call(&["create", "grouped"], Some(&group.0))?
            .expect_ok()?;
        assert!(!output.stderr.contains("no cgroup"), "{}", output.stderr);
        let state = home.state("grouped")?;
        let procs = fs::read_to_string(group.0.join("berth/grouped/cgroup.procs"))?;
        assert_eq!(procs.trim(), state["pid"].to_string());
        home.call(&["start", "grouped"], Some(&group.0))?
            .expect_ok()?;
        let deleted = home.call(&["delete", "--force", "grouped"], Some(&group.0))?;
        deleted.expect_ok()?;
        assert!(!group.0.join("berth/grouped").exists());
        Ok(())
    });
}

#[test]
fn root_more_than_ones_own_id_is_mapped_by_newuidmap() {
    test(NEEDS, || {
        let mut home = Home::new(&["report"])?;
        let map = json!([
            {"containerID": 0, "hostID": USER, "size": 1},
            {"containerID": 1, "hostID": 200_000, "size": 1000},
        ]);
        home.0.spec["linux"]["uidMappings"] = map.clone();
        home.0.spec["linux"]["gidMappings"] = map;
        home.0.spec["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
        let programs = home.0.folder().join("programs");
        let path = format!("PATH={}:/usr/sbin:/usr/bin:/bin", programs.display());
        // Where there is no such program, that is said.
        if !Path::new("/usr/bin/newuidmap").exists() {
            let error = home.call(&["run", "mapped"], None)?.expect_failure()?;
            assert!(error.contains("newuidmap"), "{error}");
        }
        fs::create_dir(&programs)?;
        for name in ["newuidmap", "newgidmap"] {
            let program = programs.join(name);
            fs::copy(PROBE, &program)?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
        }
        let script = format!("export {path}; exec ./berth-oci run mapped");
        let output = Command::new("setpriv")
            .args([format!("--reuid={USER}"), format!("--regid={USER}")])
            .args(["--clear-groups", "sh", "-c", &script])
            .current_dir(home.0.folder())
            .env("XDG_RUNTIME_DIR", home.0.folder().join("run"))
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Report = serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{error}: {text} {said}"))?;
        assert_eq!(report.status["Uid"], "7\t7\t7\t7");
        assert_eq!(report.status["Groups"], "9");
        Ok(())
    });
}

#[test]
fn root_an_ordinary_user_s_container_is_compared_with_what_was_asked() {
    test(NEEDS, || {
        let home = Home::new(&["wait"])?;
        let record = ["--record", "records"];
        let call = |args: &[&str]| home.call(&[&record, args].concat(), None)?.expect_ok();
        call(&["create", "seen"])?;
        call(&["start", "seen"])?;
        call(&["exec", "seen", "/bin/testinit", "echo", "hi"])?;
        call(&["delete", "--force", "seen"])?;
        let text = fs::read_to_string(home.0.folder().join("records"))?;
        let records: Vec<Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let [start, exec] = &records[..] else {
            anyhow::bail!("{text}");
        };
        assert_eq!(start["read_at"], "exec-stop", "{start:#}");
        let map = json!({ "uid": [[0, USER, 1]], "gid": [[0, USER, 1]] });
        assert_eq!(start["fields"]["id_maps"]["applied"], map);
        assert_eq!(start["fields"]["no_new_privs"]["applied"], true);
        // A further process enters what others are in, untraceable: the record says what that costs.
        assert_eq!(exec["verdict"], "degraded", "{exec:#}");
        let reason = exec["degraded"][0]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("CAP_SYS_PTRACE"), "{exec:#}");
        Ok(())
    });
}

#[test]
fn root_what_touches_no_state_needs_no_folder_for_it() {
    test(NEEDS, || {
        let home = Home::new(&[])?;
        for (args, code) in [(&["features"][..], 0), (&["spec"], 0), (&["list"], 1)] {
            let ended = Command::new("setpriv")
                .args([format!("--reuid={USER}"), format!("--regid={USER}")])
                .args(["--clear-groups", "./berth-oci"])
                .args(args)
                .current_dir(home.0.folder())
                .env_remove("XDG_RUNTIME_DIR")
                .output()?;
            assert_eq!(ended.status.code(), Some(code), "{args:?}: {ended:?}");
        }
        Ok(())
    });
}
