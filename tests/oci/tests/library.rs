//! The runtime as a library: layers, the pause process, a terminal.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_oci::launch::{self, ProcessIo};
use berth_oci::plan::{CgroupMode, Plan, PodPlan, RootfsSource, Source};
use berth_oci::spec::config::Spec;
use berth_sys::fork_alloc::ForkSafe;
use berth_sys::process::{self, Exit};
use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use serde_json::json;

/// The test harness has threads: without this a child could wait for ever on the heap's lock.
#[global_allocator]
static HEAP: ForkSafe = ForkSafe;

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::Program("ldd")];

/// Streams to nowhere, with standard output to a file.
fn streams(output: &Path) -> anyhow::Result<ProcessIo> {
    let null = || anyhow::Ok(OwnedFd::from(fs::File::open("/dev/null")?));
    Ok(ProcessIo::Fds {
        stdin: null()?,
        stdout: fs::File::create(output)?.into(),
        stderr: null()?,
    })
}

fn run(bundle: &Bundle, rootfs: RootfsSource) -> anyhow::Result<(Exit, String)> {
    let spec: Spec = serde_json::from_value(bundle.spec.clone())?;
    let source = Source {
        id: "library".into(),
        bundle: bundle.folder().to_owned(),
        rootfs,
        cgroup: CgroupMode::Disabled,
    };
    let plan = Plan::from_spec(&spec, &source)?;
    let output = bundle.folder().join("output");
    let running = launch::create(&plan, streams(&output)?)?.start()?;
    let exit = process::wait(&running)?;
    Ok((exit, fs::read_to_string(output)?))
}

/// A hundred layers below `folder`: each adds a file, hides the one before it, and the lowest holds the probe.
fn layers(bundle: &Bundle, folder: &Path) -> anyhow::Result<RootfsSource> {
    let mut lower = vec![bundle.root()];
    for number in 0..99 {
        let layer = folder.join(format!("{number}"));
        fs::create_dir_all(&layer)?;
        fs::write(layer.join(format!("file{number}")), "x".repeat(number))?;
        if number > 0 {
            let hidden = layer.join(format!("file{}", number - 1));
            let whiteout = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &hidden,
                whiteout,
                rustix::fs::Mode::empty(),
                0,
            )?;
        }
        lower.insert(0, layer);
    }
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    Ok(RootfsSource::Overlay {
        lower,
        upper,
        work,
        readonly: false,
    })
}

#[test]
fn root_a_hundred_layers_are_one_root_either_way() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["stat", "/file98", "/file97"])?;
        let short = bundle.folder().join("s");
        // Longer than fsconfig takes: the layers go by mount(2) and descriptors.
        let long: PathBuf = bundle.folder().join("d".repeat(120)).join("e".repeat(150));
        for folder in [short, long] {
            let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
            let rootfs = layers(&bundle, &folder)?;
            let (exit, output) = run(&bundle, rootfs)?;
            assert_eq!(exit, Exit::Code(0), "{output}");
            assert_eq!(
                output,
                "/file98 file 644 0:0\n/file97 errno 2\n",
                "{}",
                folder.display()
            );
            assert_eq!(
                fs::read_to_string("/proc/self/mountinfo")?.lines().count(),
                mounts
            );
        }
        Ok(())
    });
}

#[test]
fn root_what_is_written_goes_to_the_upper_layer_unless_read_only() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["write", "/new"])?;
        let RootfsSource::Overlay {
            lower, upper, work, ..
        } = layers(&bundle, &bundle.folder().join("l"))?
        else {
            unreachable!("layers makes an overlay")
        };
        for (readonly, answer) in [(true, "errno 30\n"), (false, "ok\n")] {
            let rootfs = RootfsSource::Overlay {
                lower: lower.clone(),
                upper: upper.clone(),
                work: work.clone(),
                readonly,
            };
            assert_eq!(run(&bundle, rootfs)?.1, answer);
            assert_eq!(fs::exists(upper.join("new"))?, !readonly);
        }
        Ok(())
    });
}

#[test]
fn root_a_container_that_is_not_started_ends_with_its_handle() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let spec: Spec = serde_json::from_value(bundle.spec.clone())?;
        let rootfs = RootfsSource::Path(bundle.root());
        let source = Source {
            id: "dropped".into(),
            bundle: bundle.folder().into(),
            rootfs,
            cgroup: CgroupMode::Disabled,
        };
        let plan = Plan::from_spec(&spec, &source)?;
        let created = launch::create(&plan, streams(&bundle.folder().join("output"))?)?;
        let pid = created.pid();
        assert!(fs::exists(format!("/proc/{pid}"))?);
        drop(created);
        assert!(!fs::exists(format!("/proc/{pid}"))?);
        Ok(())
    });
}

#[test]
fn root_a_failure_says_stage_and_number() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["wait"])?.with(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts is an array");
            mounts.push(
                json!({"destination": "/x", "source": "/no/such/place", "options": ["bind"]}),
            );
        });
        let error = run(&bundle, RootfsSource::Path(bundle.root())).unwrap_err();
        let error: launch::LaunchError = error.downcast()?;
        assert_eq!(
            (error.stage, error.errno),
            (launch::Stage::Rootfs, Some(libc::ENOENT))
        );
        let text =
            "rootfs: open the bind source `/no/such/place`: ENOENT (no such file or directory)";
        assert_eq!(error.to_string(), text);
        Ok(())
    });
}

#[test]
fn root_a_terminal_is_the_containers_own() {
    test(NEEDS, || {
        let bundle =
            Bundle::new(PROBE, &["stat", "/dev/console", "/proc/self/fd/0"])?.with(|spec| {
                spec["process"]["terminal"] = json!(true);
            });
        let spec: Spec = serde_json::from_value(bundle.spec.clone())?;
        let rootfs = RootfsSource::Path(bundle.root());
        let source = Source {
            id: "tty".into(),
            bundle: bundle.folder().into(),
            rootfs,
            cgroup: CgroupMode::Disabled,
        };
        let plan = Plan::from_spec(&spec, &source)?;
        let mut created = launch::create(
            &plan,
            ProcessIo::Terminal {
                size: Some((24, 80)),
            },
        )?;
        let console = created.take_console().expect("a terminal was asked for");
        let size = rustix::termios::tcgetwinsize(&console)?;
        assert_eq!((size.ws_row, size.ws_col), (24, 80));
        let running = created.start()?;
        assert_eq!(process::wait(&running)?, Exit::Code(0));
        // Line by line, up to the end of the last process that had it open (EIO).
        let mut text = Vec::new();
        let mut part = [0u8; 4096];
        while let Ok(length @ 1..) = rustix::io::read(&console, &mut part) {
            text.extend_from_slice(&part[..length]);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("/dev/console char 136:0"), "{text}");
        assert!(text.contains("/proc/self/fd/0 -> /dev/pts/0"), "{text}");
        Ok(())
    });
}

#[test]
fn root_a_pause_process_holds_namespaces_and_nothing_else() {
    test(NEEDS, || {
        let plan = PodPlan {
            pause: fs::File::open("/usr/bin/yes")?.into(), // stays until it is killed
            net: true,
            ipc: true,
            uts: true,
            pid: true,
            hostname: Some("pod".into()),
            sysctls: [(
                "net.ipv4.ip_unprivileged_port_start".to_owned(),
                "80".to_owned(),
            )]
            .into(),
            cgroup: None,
            oom_score_adj: None,
        };
        let running = launch::pod(&plan)?;
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid))?;
        let held = |key: &str| {
            status
                .lines()
                .find(|line| line.starts_with(key))
                .unwrap_or_default()
                .to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(held(set), format!("{set}:\t{}", "0".repeat(16)));
        }
        assert_eq!(held("NoNewPrivs"), "NoNewPrivs:\t1");
        assert_eq!(held("Uid"), "Uid:\t65535\t65535\t65535\t65535");
        process::pidfd_send_signal(running.pidfd.as_fd(), libc::SIGKILL)?;
        process::wait(&running)?;
        Ok(())
    });
}
