//! Root file systems that try to lead the runtime outside.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use serde_json::json;

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

/// A folder of the host that must stay as it is.
fn decoy(bundle: &Bundle) -> anyhow::Result<std::path::PathBuf> {
    let decoy = bundle.folder().join("decoy");
    fs::create_dir(&decoy)?;
    Ok(decoy)
}

fn is_empty(folder: &Path) -> anyhow::Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

#[test]
fn root_a_link_at_a_kernel_place_is_refused() {
    // CVE-2019-19921, CVE-2023-27561, CVE-2026-41579, CVE-2026-47766
    test(NEEDS, || {
        for place in ["proc", "sys", "dev"] {
            for inner in [true, false] {
                let bundle = Bundle::new(PROBE, &["report"])?;
                let decoy = decoy(&bundle)?;
                fs::create_dir(bundle.root().join("elsewhere"))?;
                fs::remove_dir(bundle.root().join(place))?;
                let target = if inner {
                    Path::new("/elsewhere")
                } else {
                    decoy.as_path()
                };
                symlink(target, bundle.root().join(place))?;
                let bundle = bundle.with(|spec| {
                    if place == "dev" {
                        spec["mounts"] =
                            json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
                    }
                });
                let error = bundle.run()?.expect_failure()?;
                assert!(error.contains("rootfs:"), "{place}: {error}");
                assert!(is_empty(&decoy)?, "{place}");
            }
        }
        Ok(())
    });
}

#[test]
fn root_a_mount_target_behind_a_link_stays_inside() {
    // CVE-2021-30465
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["read", "/etc/decoy/secret"])?;
        let outside = decoy(&bundle)?;
        let source = bundle.folder().join("source");
        fs::create_dir(&source)?;
        fs::write(source.join("secret"), "12345")?;
        symlink(&outside, bundle.root().join("link"))?;
        let bundle = bundle.with(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts is an array");
            mounts
                .push(json!({"destination": "/link/deep", "source": source, "options": ["bind"]}));
        });
        // The link leads to nothing inside the root.
        bundle.run()?.expect_failure()?;
        assert!(is_empty(&outside)?);
        fs::remove_file(bundle.root().join("link"))?;
        fs::create_dir(bundle.root().join("etc/decoy"))?;
        symlink("/../../etc", bundle.root().join("link"))?;
        let bundle = bundle.with(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts is an array");
            mounts.pop();
            mounts.push(
                json!({"destination": "/link/decoy", "source": source, "options": ["bind", "ro"]}),
            );
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "5 bytes\n");
        Ok(())
    });
}

#[test]
fn root_a_working_directory_cannot_be_a_descriptor() {
    // CVE-2024-21626
    test(NEEDS, || {
        let mut bundle = Bundle::new(PROBE, &["report"])?;
        for number in 3..20 {
            for base in ["/proc/self/fd", "/proc/thread-self/fd", "/proc/1/fd"] {
                bundle.spec["process"]["cwd"] = json!(format!("{base}/{number}"));
                bundle.run()?.expect_failure()?;
            }
        }
        bundle.spec["process"]["cwd"] = json!("/made/for/me");
        assert_eq!(bundle.run()?.expect_ok()?.report()?.cwd, "/made/for/me");
        symlink("/proc/self/cwd", bundle.root().join("here"))?;
        bundle.spec["process"]["cwd"] = json!("/here");
        bundle.run()?.expect_failure()?;
        Ok(())
    });
}

#[test]
fn root_a_mask_does_not_trust_the_image_for_its_null_device() {
    // CVE-2025-31133
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["write", "/proc/keys"])?;
        symlink(
            "/proc/sys/kernel/core_pattern",
            bundle.root().join("dev/null"),
        )?;
        let bundle = bundle.with(|spec| {
            spec["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
        });
        let before = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
        // The image's own entry is not the device that belongs there.
        let error = bundle.run()?.expect_failure()?;
        assert!(error.contains("/dev/null"), "{error}");
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern")?, before);
        Ok(())
    });
}

#[test]
fn root_what_is_not_supported_is_refused_by_name_all_at_once() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            spec["linux"]["intelRdt"] = json!({"closID": "x"});
            spec["process"]["cwd"] = json!("relative");
            spec["mounts"][0]["options"] = json!(["idmap"]);
            spec["linux"]["sysctl"] =
                json!({"kernel.core_pattern": "|/x", "net.ipv4.ip_forward": "1\n2"});
        });
        let error = bundle.run()?.expect_failure()?;
        for path in [
            "linux.intelRdt",
            "process.cwd",
            "mounts[0].options",
            "linux.sysctl.kernel.core_pattern",
            "linux.sysctl.net.ipv4.ip_forward",
        ] {
            assert!(error.contains(path), "{path}: {error}");
        }
        Ok(())
    });
}

#[test]
fn root_a_folder_exchanged_for_a_link_never_moves_a_mount_outside() {
    // CVE-2021-30465, CVE-2024-45310: a neighbour with the same volume races every create.
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let outside = decoy(&bundle)?;
        let volume = bundle.folder().join("volume");
        fs::create_dir_all(volume.join("a"))?;
        symlink(&outside, volume.join("b"))?;
        let source = bundle.folder().join("source");
        fs::create_dir(&source)?;
        let bundle = bundle.with(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts is an array");
            mounts.push(json!({"destination": "/vol", "source": volume, "options": ["rbind"]}));
            mounts.push(
                json!({"destination": "/vol/a/deep/down", "source": source, "options": ["rbind"]}),
            );
        });
        let stop = std::sync::atomic::AtomicBool::new(false);
        let outcomes = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (volume.join("a"), volume.join("b"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let here = rustix::fs::CWD;
                    let _ = rustix::fs::renameat_with(
                        here,
                        &a,
                        here,
                        &b,
                        rustix::fs::RenameFlags::EXCHANGE,
                    );
                }
            });
            let runs: anyhow::Result<Vec<i32>> = (0..60).map(|_| Ok(bundle.run()?.code)).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            runs
        })?;
        // Some succeed and some meet the link; none reaches the host's folder.
        assert!(
            outcomes.iter().all(|code| [0, 1].contains(code)),
            "{outcomes:?}"
        );
        assert!(is_empty(&outside)?);
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        assert!(
            !mounts.contains(&*bundle.folder().to_string_lossy()),
            "{mounts}"
        );
        Ok(())
    });
}

#[test]
fn root_an_unknown_field_is_told_and_ignored() {
    // runtime-spec, config.md, Extensibility: an engine may be newer than the runtime
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            spec["linux"]["newThing"] = json!({"limit": 1});
        });
        let output = bundle.run()?.expect_ok()?;
        assert!(output.stderr.contains("linux.newThing"), "{output:?}");
        output.report()?;
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        container.call(&["start", "ID"])?.expect_ok()?;
        let file = bundle.folder().join("process.json");
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "newThing": 1,
            "args": ["/bin/testinit", "exit", "5"]});
        std::fs::write(&file, process.to_string())?;
        let output = container.call(&["exec", "--process", &file.display().to_string(), "ID"])?;
        assert_eq!(output.code, 5, "{output:?}");
        assert!(output.stderr.contains("newThing"), "{output:?}");
        Ok(())
    });
}

#[test]
fn root_a_relative_destination_is_taken_from_the_root() {
    // runtime-spec, config.md, Mounts: deprecated, and allowed
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            let mount = json!({"destination": "tmp/here", "type": "tmpfs", "source": "tmpfs"});
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.push(mount);
            }
            // a late hook reads the spec again, as it was kept
            spec["hooks"] = json!({"poststart": [{"path": "/bin/true"}]});
        });
        let output = bundle.run()?.expect_ok()?;
        let told = "mounts[4].destination: tmp/here";
        assert!(output.stderr.contains(told), "{output:?}");
        let mounts = output.report()?.mounts;
        let is_there = |line: &String| line.split(' ').nth(4) == Some("/tmp/here");
        assert!(mounts.iter().any(is_there), "{mounts:?}");
        Ok(())
    });
}
