//! Step a: a bundle under `berth-oci`, and a container with a CRI log under the monitor.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use berth_monitor::client::Connection;
use berth_monitor::protocol::{
    CgroupMode, LaunchContainer, LauncherKind, PodConfig, Reply, Request, Rootfs,
};
use serde_json::{Value, json};

use super::tour::{Tour, expect};
use super::{Step, step};
use crate::bundle;

pub const STEPS: &[Step] = &[
    step(
        "runtime: berth-oci run prints what the container prints",
        run_prints,
    ),
    step(
        "runtime: berth-oci run passes the exit code",
        run_passes_the_code,
    ),
    step("runtime: create, start, state, kill and delete", whole_life),
    step(
        "runtime: a bundle that cannot be honoured is refused by field",
        refuses_by_field,
    ),
    step(
        "monitor: a container runs and its output is a CRI log",
        monitor_logs,
    ),
    step(
        "monitor: the exit record tells code and times",
        monitor_records_exit,
    ),
];

fn run_prints(tour: &mut Tour) -> Result<()> {
    let bundle = prepare(
        tour,
        "prints",
        &["sh", "-c", "echo hello from $(hostname)"],
        |_| (),
    )?;
    let output = oci(tour, &["run", "--bundle", path(&bundle), "tour-prints"])?;
    ensure!(output.0 == 0, "exit code {}: {}", output.0, output.1);
    expect(&output.1, "hello from berth-tour")
}

fn run_passes_the_code(tour: &mut Tour) -> Result<()> {
    let bundle = prepare(tour, "code", &["sh", "-c", "exit 42"], |_| ())?;
    let output = oci(tour, &["run", "--bundle", path(&bundle), "tour-code"])?;
    ensure!(output.0 == 42, "exit code {}: {}", output.0, output.1);
    Ok(())
}

fn whole_life(tour: &mut Tour) -> Result<()> {
    let bundle = prepare(tour, "life", &["sleep", "1000"], |_| ())?;
    let id = "tour-life";
    let state = |tour: &Tour| -> Result<Value> {
        let (_, text) = oci(tour, &["state", id])?;
        Ok(serde_json::from_str(&text)?)
    };
    done(oci(tour, &["create", "--bundle", path(&bundle), id])?)?;
    ensure!(state(tour)?["status"] == "created", "not created");
    done(oci(tour, &["start", id])?)?;
    ensure!(state(tour)?["status"] == "running", "not running");
    done(oci(tour, &["kill", id, "KILL"])?)?;
    tour.eventually(5, |tour| {
        ensure!(state(tour)?["status"] == "stopped", "not stopped");
        Ok(())
    })?;
    done(oci(tour, &["delete", id])?)?;
    ensure!(
        oci(tour, &["state", id])?.0 != 0,
        "still there after delete"
    );
    Ok(())
}

fn refuses_by_field(tour: &mut Tour) -> Result<()> {
    let bundle = prepare(tour, "refused", &["true"], |spec| {
        spec["process"]["cwd"] = json!("relative");
    })?;
    let (code, text) = oci(tour, &["run", "--bundle", path(&bundle), "tour-refused"])?;
    ensure!(code != 0, "a relative cwd was accepted");
    expect(&text, "cwd")
}

fn monitor_logs(tour: &mut Tour) -> Result<()> {
    let text = in_monitor(tour, "logs", "echo out; echo err >&2", |log, _| {
        fs::read_to_string(log).context("no log")
    })?;
    expect(&text, " stdout F out")?;
    expect(&text, " stderr F err")
}

fn monitor_records_exit(tour: &mut Tour) -> Result<()> {
    let exit = in_monitor(tour, "exits", "exit 3", |_, exit| Ok(exit.clone()))?;
    ensure!(exit["code"] == 3, "{exit}");
    let time = |name: &str| exit[name].as_i64().unwrap_or_default();
    ensure!(
        time("started_at") > 0 && time("finished_at") >= time("started_at"),
        "{exit}"
    );
    Ok(())
}

/// Runs a shell script as the one container of a monitor of its own; `read` gets
/// the log's path and the exit record.
fn in_monitor<T>(
    tour: &mut Tour,
    name: &str,
    script: &str,
    read: impl FnOnce(&Path, &Value) -> Result<T>,
) -> Result<T> {
    let bundle = prepare(tour, name, &["sh", "-c", script], |_| ())?;
    let folder = tour.file(&format!("monitor-{name}"));
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o700))?;
    let mut monitor = Command::new(tour.programs.join("berth-monitor"))
        .arg("--dir")
        .arg(&folder)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start the monitor")?;
    let socket = folder.join("monitor.sock");
    let mut connection = tour.eventually(5, |_| Ok(Connection::connect(&socket)?))?;
    let log = tour.file(&format!("{name}.log"));
    let pod = PodConfig {
        pause: tour.programs.join("berth-pause"),
        hostname: "tour".into(),
        net: true,
        ipc: true,
        uts: true,
        ..PodConfig::default()
    };
    let launch = LaunchContainer {
        id: name.into(),
        rootfs: Rootfs::Path(bundle.join("rootfs")),
        bundle,
        log_path: Some(log.clone()),
        tty: false,
        stdin: false,
        stdin_once: false,
        launcher: LauncherKind::Native,
        cgroup: CgroupMode::Disabled,
    };
    let exit = start_and_await_exit(tour, &mut connection, pod, launch, &socket);
    // whatever came before: the monitor ends with the step
    connection.call(&Request::Shutdown, &[])?;
    monitor.wait()?;
    read(&log, &exit?)
}

fn start_and_await_exit(
    tour: &mut Tour,
    connection: &mut Connection,
    pod: PodConfig,
    launch: LaunchContainer,
    socket: &Path,
) -> Result<Value> {
    connection.call(&Request::StartPod(pod), &[])?;
    connection.call(&Request::Launch(launch), &[])?;
    tour.eventually(10, |_| {
        let mut asking = Connection::connect(socket)?;
        let (Reply::State(state), _) = asking.call(&Request::State, &[])? else {
            bail!("no state");
        };
        let first = state.containers.first();
        let exit = first.and_then(|c| c.exit.as_ref()).context("still runs")?;
        Ok(serde_json::to_value(exit)?)
    })
}

/// A bundle of the busybox image, with the specification changed by `change`.
fn prepare(
    tour: &Tour,
    name: &str,
    arguments: &[&str],
    change: impl FnOnce(&mut Value),
) -> Result<PathBuf> {
    let rootfs = tour.file("rootfs");
    if !rootfs.exists() {
        bundle::unpack_busybox(&rootfs)?;
    }
    let bundle = tour.file(name);
    fs::create_dir_all(&bundle)?;
    std::os::unix::fs::symlink(&rootfs, bundle.join("rootfs")).or_else(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    let mut spec = bundle::specification(arguments, &rootfs);
    change(&mut spec);
    fs::write(
        bundle.join("config.json"),
        serde_json::to_vec_pretty(&spec)?,
    )?;
    Ok(bundle)
}

/// Runs berth-oci with the tour's own state folder: exit code, and both outputs.
fn oci(tour: &Tour, arguments: &[&str]) -> Result<(i32, String)> {
    let log = tour.file("oci.out");
    let out = fs::File::create(&log)?;
    // files, not pipes: a created container keeps its outputs open
    let status = Command::new(tour.programs.join("berth-oci"))
        .arg("--root")
        .arg(tour.file("oci-state"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .status()
        .context("cannot run berth-oci")?;
    Ok((status.code().unwrap_or(-1), fs::read_to_string(log)?))
}

fn done((code, text): (i32, String)) -> Result<()> {
    ensure!(code == 0, "exit code {code}: {text}");
    Ok(())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
