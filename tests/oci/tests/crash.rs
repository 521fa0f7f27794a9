//! The runtime killed between any two effects: one forced delete repairs everything.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_oci::cgroup::{Cgroup, Host};
use berth_oci::crash::POINTS;
use berth_sys::crash::VARIABLE;
use berth_test_harness::{Need, test};
use berth_test_oci::Bundle;
use serde_json::json;

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");

/// A container's life, in which every point is reached.
const VERBS: [&[&str]; 5] = [
    &["create", "--pid-file", "pid", "crash"],
    &["start", "crash"],
    &[
        "exec",
        "--pid-file",
        "pid",
        "crash",
        "/bin/testinit",
        "exit",
        "0",
    ],
    &["kill", "crash", "WINCH"],
    &["delete", "--force", "crash"],
];

fn call(
    runtime: &Path,
    bundle: &Bundle,
    args: &[&str],
    point: &str,
) -> anyhow::Result<std::process::ExitStatus> {
    let mut command = Command::new(runtime);
    command
        .arg("--root")
        .arg(bundle.state())
        .args(args)
        .current_dir(bundle.folder())
        .env(VARIABLE, point);
    Ok(command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?)
}

#[test]
fn root_a_forced_delete_repairs_every_crash() {
    test(&[Need::Root, Need::CgroupV2, Need::Program("ldd")], || {
        let bundle = Bundle::new(PROBE, &["wait"])?;
        let path = format!(
            "berth-test/{}",
            bundle
                .folder()
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
        );
        let bundle = bundle.with(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{path}")));
        fs::write(bundle.folder().join("config.json"), bundle.spec.to_string())?;
        let runtime = berth_test_oci::faulty(bundle.folder())?;
        let cgroup = Host::probe()?.mount.join(&path);
        for point in POINTS {
            let mut killed = false;
            for verb in VERBS {
                let status = call(&runtime, &bundle, verb, point)?;
                if status.signal() == Some(9) {
                    killed = true;
                    break;
                }
                anyhow::ensure!(status.success(), "{point}: {verb:?} {status}");
            }
            assert!(killed, "{point} was never reached");
            if point.starts_with("exec:") {
                // the container is as usable as before
                let status = call(&runtime, &bundle, VERBS[2], "")?;
                assert!(status.success(), "{point}: the next exec: {status}");
            }
            let status = call(&runtime, &bundle, &["delete", "--force", "crash"], "")?;
            assert!(status.success(), "{point}: {status}");
            assert!(
                fs::read_dir(bundle.state())?.next().is_none(),
                "{point}: state is left"
            );
            assert!(
                !fs::exists(&cgroup)?,
                "{point}: {} is left",
                cgroup.display()
            );
            let deadline = Instant::now() + Duration::from_secs(5);
            while processes_of(&bundle)? > 0 {
                assert!(Instant::now() < deadline, "{point}: a process is left");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if let Some(parent) = cgroup.parent() {
            Cgroup::open(parent)?.remove()?;
        }
        Ok(())
    });
}

/// Processes whose program or root lies in the bundle.
fn processes_of(bundle: &Bundle) -> anyhow::Result<usize> {
    let inside = bundle.folder();
    let mut count = 0;
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let exe = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let zombie = state
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'));
        count += usize::from(exe.starts_with(inside) && !zombie);
    }
    Ok(count)
}
