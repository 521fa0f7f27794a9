//! What the options of `mounts` and the root's propagation come to inside a container.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use berth_test_harness::{Host, Need, test};
use berth_test_oci::{Bundle, Report};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[
    Need::Root,
    Need::CgroupV2,
    Need::Program("ldd"),
    Need::Program("ip"),
    Need::Program("mount"),
];

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mounted {
    options: Vec<String>,
    tags: Vec<String>,
    kind: String,
    of_file_system: Vec<String>,
}

/// The topmost mount at `point`.
fn mounted(report: &Report, point: &str) -> anyhow::Result<Mounted> {
    let line = report
        .mounts
        .iter()
        .rfind(|line| line.split(' ').nth(4) == Some(point))
        .ok_or_else(|| anyhow::anyhow!("no mount at {point}: {:#?}", report.mounts))?;
    let (own, file_system) = line.split_once(" - ").unwrap_or((line, ""));
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    let own: Vec<&str> = own.split(' ').collect();
    let file_system: Vec<&str> = file_system.split(' ').collect();
    Ok(Mounted {
        options: list(own[5]),
        tags: own[6..].iter().map(|tag| (*tag).to_owned()).collect(),
        kind: file_system[0].to_owned(),
        of_file_system: list(file_system[2]),
    })
}

fn add(spec: &mut Value, mount: Value) {
    let mounts = spec["mounts"].as_array_mut().expect("mounts is an array");
    mounts.push(mount);
}

fn report_of(bundle: &Bundle) -> anyhow::Result<Report> {
    bundle.run()?.expect_ok()?.report()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn root_options_of_a_new_file_system_reach_the_mount_and_the_file_system() {
    test(NEEDS, || {
        // words, options of the mount, options of the file system that must be there
        let rows: &[(&[&str], &str, &[&str])] = &[
            (&[], "rw,relatime", &["rw"]),
            (
                &["ro", "nosuid", "nodev", "noexec"],
                "ro,nosuid,nodev,noexec,relatime",
                &[],
            ),
            (
                &[
                    "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec",
                ],
                "rw,relatime",
                &[],
            ),
            (&["noatime", "nodiratime"], "rw,noatime,nodiratime", &[]),
            (&["strictatime", "diratime"], "rw", &[]),
            (&["noatime", "norelatime", "atime"], "rw,relatime", &[]),
            (&["nosymfollow"], "rw,relatime,nosymfollow", &[]),
            (
                &["sync", "dirsync", "lazytime"],
                "rw,relatime",
                &["sync", "dirsync", "lazytime"],
            ),
            (
                &["sync", "async", "lazytime", "nolazytime"],
                "rw,relatime",
                &["rw"],
            ),
            (
                &[
                    "acl",
                    "noacl",
                    "iversion",
                    "noiversion",
                    "loud",
                    "silent",
                    "nomand",
                    "defaults",
                ],
                "rw,relatime",
                &["rw"],
            ),
            (
                &["size=64k,mode=1750", "nr_inodes=9"],
                "rw,relatime",
                &["size=64k", "nr_inodes=9", "mode=1750"],
            ),
        ];
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            for (number, (words, ..)) in rows.iter().enumerate() {
                let point = format!("/m{number}");
                add(spec, json!({"destination": point, "type": "tmpfs", "source": "tmpfs", "options": words}));
            }
        });
        let report = report_of(&bundle)?;
        for (number, (words, options, of_file_system)) in rows.iter().enumerate() {
            let found = mounted(&report, &format!("/m{number}"))?;
            assert_eq!(found.options.join(","), *options, "{words:?}");
            for option in *of_file_system {
                let there = found.of_file_system.iter().any(|found| found == option);
                assert!(
                    there,
                    "{words:?}: no {option} in {:?}",
                    found.of_file_system
                );
            }
        }
        Ok(())
    });
}

/// A tree of the host: a tmpfs with a tmpfs below.
fn tree(host: &Host, options: &str) -> anyhow::Result<std::path::PathBuf> {
    let top = host.folder("tree")?;
    let name = top.display().to_string();
    host.run("mount", &["-t", "tmpfs", "-o", options, "top", &name])?;
    let below = host.folder("tree/below")?.display().to_string();
    host.run("mount", &["-t", "tmpfs", "below", &below])?;
    Ok(top)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn root_recursive_options_reach_the_mounts_below_and_plain_ones_do_not() {
    test(NEEDS, || {
        Host::isolated(|host| {
            let source = tree(host, "rw")?;
            // words, options of the bind, options of the mount below it
            let rows: &[(&[&str], &str, &str)] = &[
                (&["rbind", "ro"], "ro,relatime", "rw,relatime"),
                (&["rbind", "rro"], "ro,relatime", "ro,relatime"),
                (&["rbind", "ro", "rrw"], "rw,relatime", "rw,relatime"),
                (
                    &["rbind", "rnosuid", "rnodev", "rnoexec"],
                    "rw,nosuid,nodev,noexec,relatime",
                    "rw,nosuid,nodev,noexec,relatime",
                ),
                (
                    &["rbind", "nosuid", "rsuid", "rdev", "rexec"],
                    "rw,relatime",
                    "rw,relatime",
                ),
                (&["rbind", "rnoatime"], "rw,noatime", "rw,noatime"),
                (
                    &["rbind", "rstrictatime", "rnodiratime"],
                    "rw,nodiratime",
                    "rw,nodiratime",
                ),
                (
                    &["rbind", "noatime", "rrelatime", "rdiratime"],
                    "rw,relatime",
                    "rw,relatime",
                ),
                (
                    &["rbind", "rnosymfollow"],
                    "rw,relatime,nosymfollow",
                    "rw,relatime,nosymfollow",
                ),
                (
                    &[
                        "rbind",
                        "rnosymfollow",
                        "rnostrictatime",
                        "ratime",
                        "rnorelatime",
                    ],
                    "rw,relatime,nosymfollow",
                    "rw,relatime,nosymfollow",
                ),
            ];
            let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
                for (number, (words, ..)) in rows.iter().enumerate() {
                    let point = format!("/m{number}");
                    add(
                        spec,
                        json!({"destination": point, "source": source, "options": words}),
                    );
                }
            });
            let report = report_of(&bundle)?;
            for (number, (words, top, below)) in rows.iter().enumerate() {
                let point = format!("/m{number}");
                let found = mounted(&report, &point)?.options.join(",");
                assert_eq!(found, *top, "{words:?}");
                let found = mounted(&report, &format!("{point}/below"))?
                    .options
                    .join(",");
                assert_eq!(found, *below, "{words:?}, below");
            }
            Ok(())
        })
    });
}

#[test]
fn root_options_of_a_bind_replace_the_sources() {
    test(NEEDS, || {
        Host::isolated(|host| {
            let source = tree(host, "nosuid,nodev,noexec,noatime")?;
            let rows: &[(&[&str], &str)] = &[
                (&["bind"], "rw,nosuid,nodev,noexec,noatime"),
                (&["bind", "ro"], "ro,noatime"),
                (&["bind", "rw"], "rw,noatime"),
                (&["bind", "nosuid", "relatime"], "rw,nosuid,relatime"),
            ];
            let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
                for (number, (words, ..)) in rows.iter().enumerate() {
                    let point = format!("/m{number}");
                    add(
                        spec,
                        json!({"destination": point, "source": source, "options": words}),
                    );
                }
            });
            let report = report_of(&bundle)?;
            for (number, (words, options)) in rows.iter().enumerate() {
                let found = mounted(&report, &format!("/m{number}"))?;
                assert_eq!(found.options.join(","), *options, "{words:?}");
            }
            Ok(())
        })
    });
}

#[test]
fn root_remount_changes_a_mount_that_is_there() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            let tmpfs = json!({"destination": "/m", "type": "tmpfs", "options": ["size=64k"]});
            add(spec, tmpfs);
            let options = ["remount", "ro", "nosuid", "size=128k"];
            add(
                spec,
                json!({"destination": "/m", "type": "tmpfs", "options": options}),
            );
        });
        let report = report_of(&bundle)?;
        let found = mounted(&report, "/m")?;
        assert_eq!(found.options.join(","), "ro,nosuid,relatime");
        assert!(
            found.of_file_system.contains(&"size=128k".to_owned()),
            "{found:?}"
        );
        let at_m = report
            .mounts
            .iter()
            .filter(|line| line.split(' ').nth(4) == Some("/m"));
        assert_eq!(at_m.count(), 1, "remount must not mount a second time");
        let bundle = bundle.with(|spec| {
            add(
                spec,
                json!({"destination": "/etc", "type": "none", "options": ["remount", "ro"]}),
            );
        });
        let error = bundle.run()?.expect_failure()?;
        assert!(error.contains("/etc"), "{error}"); // no mount is there
        Ok(())
    });
}

#[test]
fn root_an_id_mapped_mount_shows_other_owners_and_stores_the_old() {
    test(NEEDS, || {
        Host::isolated(|host| {
            let folder = host.folder("mapped")?;
            let name = folder.display().to_string();
            host.run("mount", &["-t", "tmpfs", "mapped", &name])?;
            let deep = host.folder("mapped/deep")?.display().to_string();
            host.run("mount", &["-t", "tmpfs", "deep", &deep])?;
            for file in ["file", "deep/file"] {
                fs::write(folder.join(file), "x")?;
                std::os::unix::fs::chown(folder.join(file), Some(1000), Some(1001))?;
            }
            let maps = |outside: u32| json!([{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1000, "hostID": outside, "size": 10}]);
            let mount = |options: Value| {
                json!({"destination": "/m", "source": folder, "options": options,
                    "uidMappings": maps(5000), "gidMappings": maps(7000)})
            };
            // words, what the file below shows
            let rows = [
                (json!(["rbind", "idmap"]), "1000:1001"),
                (json!(["rbind"]), "1000:1001"),
                (json!(["rbind", "ridmap"]), "5000:7001"),
            ];
            for (words, below) in rows {
                let args = ["stat", "/m/file", "/m/deep/file"];
                let bundle =
                    Bundle::new(PROBE, &args)?.with(|spec| add(spec, mount(words.clone())));
                let told = bundle.run()?.expect_ok()?.stdout;
                let expected =
                    format!("/m/file file 644 5000:7001\n/m/deep/file file 644 {below}\n");
                assert_eq!(told, expected, "{words}");
            }
            let bundle = Bundle::new(PROBE, &["write", "/m/new"])?
                .with(|spec| add(spec, mount(json!(["bind", "idmap"]))))
                .with(|spec| spec["process"]["user"] = json!({"uid": 5003, "gid": 7004}));
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
            assert_eq!(bundle.run()?.expect_ok()?.stdout, "ok\n");
            let stored = fs::metadata(folder.join("new"))?;
            assert_eq!((stored.uid(), stored.gid()), (1003, 1004));
            Ok(())
        })
    });
}

#[test]
fn root_a_tmpfs_starts_with_a_copy_of_what_it_covers_only_if_asked() {
    test(NEEDS, || {
        let paths = [
            "/m/file",
            "/m/folder",
            "/m/folder/deep",
            "/m/link",
            "/m/fifo",
        ];
        let args: Vec<&str> = ["stat"].into_iter().chain(paths).collect();
        let bundle = Bundle::new(PROBE, &args)?;
        let covered = bundle.root().join("m");
        fs::create_dir_all(covered.join("folder"))?;
        fs::write(covered.join("file"), "content")?;
        fs::write(covered.join("folder/deep"), "x")?;
        fs::set_permissions(covered.join("file"), fs::Permissions::from_mode(0o4711))?;
        fs::set_permissions(covered.join("folder"), fs::Permissions::from_mode(0o1750))?;
        std::os::unix::fs::chown(covered.join("folder/deep"), Some(7), Some(8))?;
        symlink("/nowhere", covered.join("link"))?;
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, covered.join("fifo"), fifo, mode, 0)?;
        let tmpfs = |options: &[&str]| json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": options});
        let bundle = bundle.with(|spec| add(spec, tmpfs(&["tmpcopyup", "ro"])));
        let told = bundle.run()?.expect_ok()?.stdout;
        let expected = "/m/file file 4711 0:0\n/m/folder dir 1750 0:0\n/m/folder/deep file 644 7:8\n\
            /m/link -> /nowhere 777 0:0\n/m/fifo fifo 600 0:0\n";
        assert_eq!(told, expected);
        let bundle = bundle.with(|spec| {
            spec["process"]["args"] = json!(["/bin/testinit", "print", "/m/file"]);
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "content");
        let bundle = bundle.with(|spec| {
            spec["process"]["args"] = json!(["/bin/testinit", "write", "/m/new"]);
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "errno 30\n");
        let bundle = bundle.with(|spec| {
            spec["mounts"].as_array_mut().expect("an array").pop();
            add(spec, tmpfs(&["tmpcopyup", "mode=700", "gid=9"]));
            spec["process"]["args"] = json!(["/bin/testinit", "stat", "/m"]);
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "/m dir 700 0:9\n");
        let bundle = bundle.with(|spec| {
            spec["mounts"].as_array_mut().expect("an array").pop();
            add(spec, tmpfs(&[]));
            spec["process"]["args"] = json!(["/bin/testinit", "list", "/m"]);
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "0 entries\n");
        Ok(())
    });
}

#[test]
fn root_copy_symlink_makes_the_link_again_and_binds_anything_else() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["stat", "/m/link", "/m/file"])?;
        symlink("/etc/somewhere", bundle.folder().join("link"))?;
        fs::write(bundle.folder().join("file"), "x")?;
        let bundle = bundle.with(|spec| {
            for name in ["link", "file"] {
                let destination = format!("/m/{name}");
                add(spec, json!({"destination": destination, "source": name, "options": ["bind", "copy-symlink"]}));
            }
        });
        for _again in 0..2 {
            let told = bundle.run()?.expect_ok()?.stdout;
            assert_eq!(
                told,
                "/m/link -> /etc/somewhere 777 0:0\n/m/file file 644 0:0\n"
            );
        }
        Ok(())
    });
}

#[test]
fn root_other_kinds_of_file_systems_are_the_containers_own() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?;
        for folder in ["lower1", "lower2", "upper", "work"] {
            fs::create_dir(bundle.folder().join(folder))?;
        }
        let at = |name: &str| bundle.folder().join(name).display().to_string();
        let lower = format!("lowerdir={}:{}", at("lower1"), at("lower2"));
        let layers = [
            lower,
            format!("upperdir={}", at("upper")),
            format!("workdir={}", at("work")),
        ];
        let bundle = bundle.with(|spec| {
            let mqueue = ["nosuid", "noexec", "nodev"];
            add(spec, json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": mqueue}));
            add(spec, json!({"destination": "/over", "type": "overlay", "source": "overlay", "options": layers}));
        });
        let report = report_of(&bundle)?;
        let kinds = ["/dev/mqueue", "/over", "/dev/pts"].map(|point| mounted(&report, point));
        let kinds: Vec<String> = kinds
            .into_iter()
            .flatten()
            .map(|found| found.kind)
            .collect();
        assert_eq!(kinds, ["mqueue", "overlay", "devpts"]);
        Ok(())
    });
}

#[test]
fn root_cgroups_are_seen_from_the_own_namespace_or_as_the_host_has_them() {
    // CVE-2023-25809
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?.with(|spec| {
            let options = ["ro", "nosuid", "nodev", "noexec"];
            add(spec, json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
        });
        let report = report_of(&bundle)?;
        let found = mounted(&report, "/sys/fs/cgroup")?;
        assert_eq!(
            (found.kind.as_str(), report.cgroup.as_str()),
            ("cgroup2", "0::/")
        );
        assert_eq!(found.options.join(","), "ro,nosuid,nodev,noexec,relatime");
        let before = fs::read_to_string("/proc/self/mountinfo")?;
        let bundle = bundle.with(|spec| {
            let namespaces = spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("an array");
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        });
        let report = report_of(&bundle)?;
        let found = mounted(&report, "/sys/fs/cgroup")?;
        assert_eq!(found.kind, "cgroup2");
        assert_ne!(report.cgroup, "0::/");
        assert_eq!(found.options.join(","), "ro,nosuid,nodev,noexec,relatime");
        assert_eq!(
            before,
            fs::read_to_string("/proc/self/mountinfo")?,
            "options of the hierarchy"
        );
        Ok(())
    });
}

#[test]
fn root_the_roots_propagation_is_as_asked_and_its_mounts_never_reach_the_host() {
    test(NEEDS, || {
        Host::isolated(|host| {
            host.run("mount", &["--make-rshared", "/"])?;
            for (word, tag) in [
                ("private", None),
                ("rslave", Some("master:")),
                ("shared", Some("shared:")),
                ("rshared", Some("shared:")),
                ("unbindable", Some("unbindable")),
            ] {
                let bundle = Bundle::new(PROBE, &["report"])?
                    .with(|spec| spec["linux"]["rootfsPropagation"] = json!(word));
                let before = fs::read_to_string("/proc/self/mountinfo")?;
                let report = report_of(&bundle)?;
                let tags = mounted(&report, "/")?.tags;
                match tag {
                    None => assert!(tags.is_empty(), "{word}: {tags:?}"),
                    Some(tag) => {
                        let there = tags.iter().any(|found| found.starts_with(tag));
                        assert!(there, "{word}: {tags:?}");
                    }
                }
                let after = fs::read_to_string("/proc/self/mountinfo")?;
                assert_eq!(before.lines().count(), after.lines().count(), "{word}");
            }
            Ok(())
        })
    });
}

#[test]
fn root_all_masked_folders_share_one_file_system() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["report"])?;
        for folder in ["one", "two", "three"] {
            fs::create_dir(bundle.root().join(folder))?;
        }
        fs::write(bundle.root().join("file"), "secret")?;
        let bundle = bundle.with(|spec| {
            spec["linux"]["maskedPaths"] = json!(["/one", "/two", "/three", "/file"]);
        });
        let report = report_of(&bundle)?;
        let device = |point: &str| {
            let line = report
                .mounts
                .iter()
                .rfind(|line| line.split(' ').nth(4) == Some(point));
            line.and_then(|line| line.split(' ').nth(2))
                .map(str::to_owned)
        };
        assert!(device("/one").is_some());
        assert_eq!(
            (device("/one"), device("/one")),
            (device("/two"), device("/three"))
        );
        for point in ["/one", "/two", "/three", "/file"] {
            let found = mounted(&report, point)?;
            assert!(
                found.options.contains(&"ro".to_owned()),
                "{point}: {found:?}"
            );
        }
        let bundle = bundle.with(|spec| {
            spec["process"]["args"] = json!(["/bin/testinit", "read", "/file"]);
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "0 bytes\n");
        assert!(Path::new("/dev/null").exists());
        Ok(())
    });
}

#[test]
fn root_nothing_is_made_in_a_dev_of_the_host() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["exit", "0"])?;
        let dev = bundle.folder().join("dev");
        fs::create_dir(&dev)?;
        let bundle = bundle.with(|spec| {
            let bound = json!({"destination": "/dev", "source": dev, "options": ["rbind", "ro"]});
            spec["mounts"] = json!([spec["mounts"][0], bound]);
            spec["linux"]["devices"] = json!([
                {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3},
                {"path": "/tmp/mine", "type": "c", "major": 1, "minor": 3}]);
        });
        bundle.run()?.expect_ok()?;
        assert_eq!(fs::read_dir(&dev)?.count(), 0);
        assert!(
            fs::exists(bundle.root().join("tmp/mine"))?,
            "not below /dev"
        );
        Ok(())
    });
}
