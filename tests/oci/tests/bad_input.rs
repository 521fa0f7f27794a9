//! What no engine should send: each is a named error, and nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};

use berth_test_harness::{Host, Need, test};
use berth_test_oci::{Bundle, Container};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

fn is_empty(folder: &Path) -> anyhow::Result<bool> {
    Ok(!fs::exists(folder)? || fs::read_dir(folder)?.next().is_none())
}

/// `create` with this configuration must fail with `word`, and leave nothing.
fn refused(bundle: &Bundle, config: &[u8], word: &str) -> anyhow::Result<()> {
    let container = Container::new(bundle);
    fs::write(bundle.folder().join("config.json"), config)?;
    let said = container.create()?.expect_failure()?;
    assert!(said.contains(word), "{word}: {said}");
    assert!(is_empty(&bundle.state())?, "{word}: state is left");
    Ok(())
}

#[test]
fn root_configurations_that_are_none_are_refused() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let whole = bundle.spec.to_string();
        refused(
            &bundle,
            &whole.as_bytes()[..whole.len() / 2],
            "is not a valid spec",
        )?;
        refused(&bundle, b"", "is not a valid spec")?;
        refused(
            &bundle,
            format!("{whole} x").as_bytes(),
            "is not a valid spec",
        )?;
        let twice = whole.replacen('{', r#"{"hostname":"a","#, 1);
        refused(&bundle, twice.as_bytes(), "hostname: is given twice")?;
        let twice = whole.replacen('{', r#"{"annotations":{"a":"1","b":"","a":"2"},"#, 1);
        refused(&bundle, twice.as_bytes(), "annotations.a: is given twice")?;
        let types = json!({"ociVersion": "1.0.2", "hostname": 1, "process": {"args": "sh"},
            "linux": {"namespaces": [{"type": "net"}]}});
        for word in [
            "hostname: is an integer, not a string",
            "process.args: is a string, not a list",
            "process.cwd: is missing",
            "linux.namespaces[0].type: `net` is not one of mount",
        ] {
            refused(&bundle, types.to_string().as_bytes(), word)?; // all of them at once
        }
        let deep = format!("{{\"annotations\":{}", "[".repeat(100_000));
        refused(&bundle, deep.as_bytes(), "is not a valid spec")?;
        let huge = whole.replacen('{', &format!("{{{}", " ".repeat(5 << 20)), 1);
        refused(&bundle, huge.as_bytes(), "is larger than 4194304 bytes")?;
        refused(&bundle, b"\xff\xfe{}", "is not a valid spec")?;
        let wrong = json!({"ociVersion": "1.0.2", "process": {"user": {"uid": 0, "gid": 0}, "cwd": "x", "args": []}, "hostname": "a",
            "linux": {"resources": {"cpu": {"realtimeRuntime": 1}, "network": {"classID": 1}}}});
        for word in [
            "process.args",
            "process.cwd",
            "cpu.realtimeRuntime",
            "resources.network",
        ] {
            refused(&bundle, wrong.to_string().as_bytes(), word)?; // all of them at once
        }
        Ok(())
    });
}

#[test]
fn root_ids_that_are_no_names_are_refused_by_every_verb() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let container = bundle.container()?;
        let long = "a".repeat(5000);
        for id in [
            "a/b",
            "..",
            ".",
            ".a",
            "a\nb",
            "",
            "../../etc",
            "a b",
            "ä",
            &long,
        ] {
            for verb in ["create", "state", "kill", "delete"] {
                let output = container.call(&[verb, id])?;
                assert_ne!(output.code, 0, "{verb} {id:?}");
                let named = output.stderr.contains("is not a container id");
                assert!(
                    named && output.stderr.len() < 500,
                    "{verb}: {}",
                    output.stderr
                );
            }
            let forced = container.call(&["delete", "--force", id])?;
            assert_ne!(forced.code, 0, "delete --force {id:?}");
        }
        assert!(is_empty(&bundle.state())?);
        let longest = "a".repeat(255);
        container.call(&["run", &longest])?.expect_ok()?;
        Ok(())
    });
}

#[test]
fn root_bundles_in_strange_places() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["echo", "here"])?;
        let container = bundle.container()?;
        let link = bundle.folder().join("link");
        std::os::unix::fs::symlink(bundle.folder(), &link)?;
        let link = link.display().to_string();
        let output = container
            .call(&["run", "--bundle", &link, "ID"])?
            .expect_ok()?;
        assert_eq!(output.stdout, "here\n");
        let said = container
            .call(&["run", "--bundle", "/no/such", "ID"])?
            .expect_failure()?;
        assert!(
            said.contains("cannot read `/no/such/config.json`"),
            "{said}"
        );
        fs::rename(bundle.root(), bundle.folder().join("moved"))?;
        let said = container.call(&["run", "ID"])?.expect_failure()?;
        assert!(
            said.contains("open the root") && said.contains("ENOENT"),
            "{said}"
        );
        assert!(is_empty(&bundle.state())?);
        Ok(())
    });
}

/// A bundle in `folder` with the parts of `bundle`.
fn copy(bundle: &Bundle, folder: &Path) -> anyhow::Result<()> {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(bundle.root())
        .arg(folder)
        .status()?;
    anyhow::ensure!(status.success(), "cp failed");
    Ok(fs::write(
        folder.join("config.json"),
        bundle.spec.to_string(),
    )?)
}

/// A tmpfs of 16 MiB with a bundle.
fn disk(host: &Host, bundle: &Bundle) -> anyhow::Result<PathBuf> {
    let folder = host.folder("disk")?;
    let path = folder.display().to_string();
    host.run("mount", &["-t", "tmpfs", "-o", "size=16m", "tmpfs", &path])?;
    copy(bundle, &folder)?;
    Ok(folder)
}

#[test]
fn root_a_full_or_read_only_disk_is_told_and_nothing_is_left() {
    test(NEEDS, || {
        Host::isolated(|host| {
            let bundle = Bundle::new(PROBE, &["exit", "0"])?.with(|spec| {
                let mounts = spec["mounts"].as_array_mut().expect("mounts");
                mounts.push(json!({"destination": "/made", "type": "tmpfs", "source": "tmpfs"}));
            });
            let container = bundle.container()?;
            let disk = disk(host, &bundle)?;
            let path = disk.display().to_string();
            let run = |root: &Path| {
                let root = root.display().to_string();
                container.call(&["--root", &root, "run", "--bundle", &path, "ID"])
            };
            let groups = || fs::read_to_string("/proc/self/mountinfo");
            let before = groups()?;
            // full: first the bundle, then the state directory
            let filler = disk.join("filler");
            let _ = fs::write(&filler, vec![1u8; 32 << 20]); // up to the last byte
            let said = run(&disk.join("state"))?.expect_failure()?;
            assert!(said.contains("No space left on device"), "{said}");
            assert!(is_empty(&disk.join("state"))?);
            let pid_file = disk.join("pid").display().to_string();
            let said =
                container.call(&["run", "--bundle", &path, "--pid-file", &pid_file, "ID"])?;
            assert!(said.expect_failure()?.contains("No space left on device"));
            assert!(is_empty(&bundle.state())? && !fs::exists(&pid_file)?);
            fs::remove_file(&filler)?;
            fs::remove_dir(disk.join("rootfs/made")).ok();
            // read-only: a mount target is missing, then the state directory cannot be made
            host.run("mount", &["-o", "remount,ro", &path])?;
            let said = run(&bundle.state())?.expect_failure()?;
            assert!(said.contains("EROFS"), "{said}");
            assert!(is_empty(&bundle.state())?);
            let said = run(&disk.join("state"))?.expect_failure()?;
            assert!(said.contains("Read-only file system"), "{said}");
            // and with every target there, it runs
            let plain = Bundle::new(PROBE, &["exit", "0"])?;
            fs::write(bundle.folder().join("plain.json"), plain.spec.to_string())?;
            host.run("mount", &["-o", "remount,rw", &path])?;
            fs::create_dir_all(disk.join("rootfs/made"))?;
            host.run("mount", &["-o", "remount,ro", &path])?;
            run(&bundle.state())?.expect_ok()?;
            assert_eq!(groups()?, before);
            Ok(())
        })
    });
}

#[test]
fn root_a_damaged_state_is_told_and_a_forced_delete_ends_all() {
    test(NEEDS, || {
        let damages: [fn(&mut Value) -> String; 4] = [
            |_| "{".to_owned(),
            |_| String::new(),
            |record| {
                // another version: a field that it needs is not there
                record.as_object_mut().expect("fields").remove("bundle");
                record.to_string()
            },
            |record| {
                record["pid"] = json!("seven");
                record.to_string()
            },
        ];
        for damage in damages {
            let bundle = Bundle::new(PROBE, &["wait"])?;
            let container = bundle.container()?;
            container.create()?.expect_ok()?;
            container.call(&["start", "ID"])?.expect_ok()?;
            let file = bundle.state().join(&container.id).join("state.json");
            let mut record: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
            let cgroup = record["cgroup"].as_str().unwrap_or_default().to_owned();
            fs::write(&file, damage(&mut record))?;
            for verb in ["state", "start", "delete", "pause", "kill"] {
                let said = container.call(&[verb, "ID"])?.expect_failure()?;
                assert!(said.contains("is damaged"), "{verb}: {said}");
            }
            container.call(&["delete", "--force", "ID"])?.expect_ok()?;
            assert!(is_empty(&bundle.state())?);
            assert!(!fs::exists(&cgroup)?, "{cgroup} is left");
        }
        // a newer version's further fields do no harm
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        let file = bundle.state().join(&container.id).join("state.json");
        let mut record: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        record["of_a_newer_version"] = json!({"a": 1});
        fs::write(&file, record.to_string())?;
        assert_eq!(container.status()?, "created");
        Ok(())
    });
}

#[test]
fn root_of_creates_at_the_same_instant_one_wins() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = bundle.container()?;
        for _ in 0..3 {
            let results: Vec<_> = std::thread::scope(|scope| {
                let create = || {
                    scope.spawn(|| {
                        container.call_with(&["create", "ID"], |command| {
                            let null = std::process::Stdio::null;
                            command.stdout(null()).stderr(null());
                        })
                    })
                };
                let all: Vec<_> = (0..4).map(|_| create()).collect();
                all.into_iter()
                    .map(|one| one.join().expect("no panic"))
                    .collect()
            });
            let codes: Result<Vec<i32>, _> = results
                .into_iter()
                .map(|one| one.map(|output| output.code))
                .collect();
            let codes = codes?;
            assert_eq!(
                codes.iter().filter(|code| **code == 0).count(),
                1,
                "{codes:?}"
            );
            assert_eq!(container.status()?, "created");
            container.call(&["delete", "--force", "ID"])?.expect_ok()?;
            assert!(is_empty(&bundle.state())?);
        }
        Ok(())
    });
}
