//! Containers with a user namespace, as their own processes see it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use berth_oci::launch::{self, ProcessIo};
use berth_oci::plan::{CgroupMode, Plan, RootfsSource, Source};
use berth_oci::spec::config::Spec;
use berth_sys::fork_alloc::ForkSafe;
use berth_sys::process::{self, Exit};
use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use serde_json::{Value, json};

/// The test harness has threads: without this a child could wait for ever on the heap's lock.
#[global_allocator]
static HEAP: ForkSafe = ForkSafe;

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

/// Where the ids of the container start on the host.
const FIRST: u32 = 100_000;

fn mapped(spec: &mut Value) {
    let namespaces = spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("namespaces");
    namespaces.push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
}

/// A bundle whose root file system belongs to the container's root, as an engine prepares it.
fn bundle(args: &[&str]) -> anyhow::Result<Bundle> {
    let bundle = Bundle::new(PROBE, args)?.with(mapped);
    fs::set_permissions(
        bundle.folder(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    for folder in ["", "bin", "dev", "etc", "proc", "sys", "tmp"] {
        chown(bundle.root().join(folder), Some(FIRST), Some(FIRST))?;
    }
    Ok(bundle)
}

#[test]
fn root_ids_inside_are_the_mapped_ones_outside() {
    test(NEEDS, || {
        let bundle = bundle(&["report"])?;
        let report = bundle.run()?.expect_ok()?.report()?;
        assert_eq!(report.pid, 1);
        assert_eq!(report.status["Uid"], "0\t0\t0\t0");
        assert_eq!(report.status["Groups"], "");
        assert_eq!(report.status["CapEff"], report.status["CapBnd"]);
        assert_eq!(report.hostname, "probe");
        let host = fs::read_link("/proc/self/ns/user")?;
        assert_ne!(report.namespaces["user"], host.to_string_lossy());
        let bundle = bundle.with(|spec| {
            spec["process"]["args"] = json!(["/bin/testinit", "print", "/proc/self/uid_map"]);
        });
        let output = bundle.run()?.expect_ok()?;
        let words: Vec<&str> = output.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "100000", "65536"]);
        Ok(())
    });
}

#[test]
fn root_files_and_file_systems_belong_to_the_containers_root() {
    test(NEEDS, || {
        let paths = ["/etc", "/proc/1", "/sys", "/dev", "/dev/pts", "/dev/null"];
        let mut args = vec!["stat"];
        args.extend(paths);
        let bundle = bundle(&args)?;
        let output = bundle.run()?.expect_ok()?;
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines.len(), paths.len(), "{output:?}");
        for (line, path) in lines.iter().zip(paths) {
            // Device nodes and kernel objects are the host's, whose root is nobody here.
            let owner = if ["/dev/null", "/sys"].contains(&path) {
                "65534:65534"
            } else {
                "0:0"
            };
            assert!(line.ends_with(owner), "{line}");
        }
        let bundle =
            bundle.with(|spec| spec["process"]["args"] = json!(["/bin/testinit", "write", "/new"]));
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "ok\n");
        let made = fs::metadata(bundle.root().join("new"))?;
        assert_eq!((made.uid(), made.gid()), (FIRST, FIRST));
        Ok(())
    });
}

#[test]
fn root_masks_and_read_only_paths_hold_under_a_user_namespace() {
    test(NEEDS, || {
        let errno = |number: i32| format!("errno {number}\n");
        let rows: &[(&[&str], String)] = &[
            (&["read", "/proc/keys"], "0 bytes\n".into()),
            (&["list", "/sys/firmware"], "0 entries\n".into()),
            (&["write", "/proc/sys/kernel/core_pattern"], errno(13)),
            (&["write", "/sys/firmware/x"], errno(30)),
        ];
        let mut bundle = bundle(&[])?;
        for (request, answer) in rows {
            let mut args = vec!["/bin/testinit"];
            args.extend_from_slice(request);
            bundle.spec["process"]["args"] = json!(args);
            assert_eq!(bundle.run()?.expect_ok()?.stdout, *answer, "{request:?}");
        }
        Ok(())
    });
}

#[test]
fn root_a_user_and_its_groups_are_those_of_the_container() {
    test(NEEDS, || {
        let bundle = bundle(&["report"])?.with(|spec| {
            spec["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7]});
            spec["process"]["capabilities"] = json!({});
        });
        let report = bundle.run()?.expect_ok()?.report()?;
        assert_eq!(report.status["Uid"], "1000\t1000\t1000\t1000");
        assert_eq!(report.status["Gid"], "1001\t1001\t1001\t1001");
        assert_eq!(report.status["Groups"], "5 7");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(report.status[set], "0000000000000000", "{set}");
        }
        Ok(())
    });
}

#[test]
fn root_a_bind_source_that_only_the_hosts_root_may_reach_is_shown() {
    test(NEEDS, || {
        let bundle = bundle(&["read", "/data/secret"])?;
        let source = bundle.folder().join("closed/source");
        fs::create_dir_all(&source)?;
        fs::write(source.join("secret"), "12345")?;
        fs::set_permissions(
            source.parent().expect("a folder"),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )?;
        let bundle = bundle.with(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.push(json!({"destination": "/data", "source": source, "options": ["bind"]}));
        });
        assert_eq!(bundle.run()?.expect_ok()?.stdout, "5 bytes\n");
        Ok(())
    });
}

#[test]
fn root_exec_joins_the_containers_user_namespace() {
    test(NEEDS, || {
        let bundle = bundle(&["wait"])?;
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        container.call(&["start", "ID"])?.expect_ok()?;
        let output = container.call(&["exec", "ID", "/bin/testinit", "report"])?;
        let report = output.expect_ok()?.report()?;
        assert_eq!(report.status["Uid"], "0\t0\t0\t0");
        let state = container.call(&["state", "ID"])?.expect_ok()?;
        let state: Value = serde_json::from_str(&state.stdout)?;
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let of_init = fs::read_link(format!("/proc/{}/ns/{kind}", state["pid"]))?;
            assert_eq!(report.namespaces[kind], of_init.to_string_lossy(), "{kind}");
        }
        // An id outside the maps is refused before anything is made.
        let error = container
            .call(&["exec", "--user", "70000", "ID", "/bin/testinit", "report"])?
            .expect_failure()?;
        assert!(
            error.contains("process.user.uid: 70000 is not mapped"),
            "{error}"
        );
        Ok(())
    });
}

#[test]
fn root_a_user_namespace_is_joined_by_its_path() {
    test(NEEDS, || {
        let holder = bundle(&["wait"])?;
        let first = holder.container()?;
        first.create()?.expect_ok()?;
        first.call(&["start", "ID"])?.expect_ok()?;
        let state = first.call(&["state", "ID"])?.expect_ok()?;
        let state: Value = serde_json::from_str(&state.stdout)?;
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", state["pid"]);
        let bundle = bundle(&["report"])?.with(|spec| {
            spec["linux"]["namespaces"] = json!([
                {"type": "user", "path": path("user")}, {"type": "network", "path": path("net")},
                {"type": "ipc", "path": path("ipc")}, {"type": "uts", "path": path("uts")},
                {"type": "pid"}, {"type": "mount"}, {"type": "cgroup"},
            ]);
        });
        let report = bundle.run()?.expect_ok()?.report()?;
        for kind in ["user", "net", "ipc", "uts"] {
            assert_eq!(
                report.namespaces[kind],
                fs::read_link(path(kind))?.to_string_lossy()
            );
        }
        assert_eq!(
            (report.pid, report.status["Uid"].as_str()),
            (1, "0\t0\t0\t0")
        );
        // Maps that are not those of the namespace are refused.
        let bundle = bundle.with(|spec| spec["linux"]["uidMappings"][0]["size"] = json!(5));
        let error = bundle.run()?.expect_failure()?;
        assert!(error.contains("linux.uidMappings"), "{error}");
        Ok(())
    });
}

/// Two layers, made by root for root, as an image's: the upper of them hides a file and a folder.
fn layers(bundle: &Bundle) -> anyhow::Result<RootfsSource> {
    let top = bundle.folder().join("top");
    fs::create_dir_all(top.join("opaque"))?;
    fs::create_dir_all(bundle.root().join("opaque"))?;
    fs::write(bundle.root().join("opaque/hidden"), "x")?;
    fs::write(bundle.root().join("etc/owned"), "x")?;
    chown(bundle.root().join("etc/owned"), Some(7), Some(8))?;
    let opaque = (c"trusted.overlay.opaque", b"y");
    let folder = fs::File::open(top.join("opaque"))?;
    rustix::fs::fsetxattr(&folder, opaque.0, opaque.1, rustix::fs::XattrFlags::empty())?;
    for folder in ["", "bin", "dev", "etc", "proc", "sys", "tmp", "opaque"] {
        chown(bundle.root().join(folder), Some(0), Some(0))?;
    }
    let writable = bundle.folder().join("writable");
    let (upper, work) = (writable.join("upper"), writable.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let lower = vec![top, bundle.root()];
    Ok(RootfsSource::Overlay {
        lower,
        upper,
        work,
        readonly: false,
    })
}

fn run(bundle: &Bundle, rootfs: &RootfsSource) -> anyhow::Result<(Exit, String)> {
    let spec: Spec = serde_json::from_value(bundle.spec.clone())?;
    let source = Source {
        id: "users".into(),
        bundle: bundle.folder().to_owned(),
        rootfs: rootfs.clone(),
        cgroup: CgroupMode::Disabled,
    };
    let plan = Plan::from_spec(&spec, &source)?;
    let output = bundle.folder().join("output");
    let streams = ProcessIo::Fds {
        stdin: fs::File::open("/dev/null")?.into(),
        stdout: fs::File::create(&output)?.into(),
        stderr: fs::File::open("/dev/null")?.into(),
    };
    let running = launch::create(&plan, streams)?.start()?;
    let exit = process::wait(&running)?;
    Ok((exit, fs::read_to_string(output)?))
}

#[test]
fn root_layers_keep_the_ids_of_the_image() {
    test(NEEDS, || {
        let mut bundle = bundle(&["stat", "/", "/etc/owned", "/opaque/hidden"])?;
        let rootfs = layers(&bundle)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let (exit, output) = run(&bundle, &rootfs)?;
        assert_eq!(exit, Exit::Code(0), "{output}");
        let expected = "/ dir 755 0:0\n/etc/owned file 644 7:8\n/opaque/hidden errno 2\n";
        assert_eq!(output, expected);
        assert_eq!(fs::read_to_string("/proc/self/mountinfo")?, mounts);
        // What is written, and what is copied up, has the container's ids in the upper layer, too.
        bundle.spec["process"]["args"] = json!(["/bin/testinit", "write", "/etc/new"]);
        assert_eq!(run(&bundle, &rootfs)?.1, "ok\n");
        let RootfsSource::Overlay { upper, .. } = &rootfs else {
            unreachable!("layers makes an overlay")
        };
        for path in ["etc", "etc/new"] {
            let metadata = fs::metadata(upper.join(path))?;
            assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{path}");
        }
        Ok(())
    });
}
