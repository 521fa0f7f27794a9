//! A pod's monitor as the daemon drives it: the library path, without a process of the runtime.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_monitor::client::Connection;
use berth_monitor::protocol::{
    CgroupMode, EventKind, ExecSession, LaunchContainer, LauncherKind, PodConfig, Reply, Request,
    Rootfs, SOCKET_NAME,
};
use serde_json::{Value, json};

use super::hierarchy;

/// The one short-lived container.
const BRIEF: &str = "brief";
/// The one that processes are executed in.
const LASTING: &str = "lasting";
/// How long a monitor may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Namespaces of the pod that its containers join, as the specification and /proc call them.
const SHARED: [(&str, &str); 3] = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];

/// A pod with its own monitor; dropping it ends both.
pub struct Monitor {
    process: Child,
    calls: Connection,
    events: Connection,
    folder: PathBuf,
    socket: PathBuf,
    specification: Value,
    pause: i32,
    /// Parent group of the containers.
    group: String,
}

impl Monitor {
    /// Starts the pod, and in it the container for [`Monitor::exec`].
    pub fn start(programs: &Path, folder: &Path, specification: &Value) -> Result<Monitor> {
        let pod = folder.join("pod");
        let group = format!("berth-bench-{}", std::process::id());
        let process = Command::new(programs.join("berth-monitor"))
            .arg("--dir")
            .arg(&pod)
            .args(["--cgroup", &format!("{group}/berth")])
            .spawn()
            .context("cannot run berth-monitor")?;
        let socket = pod.join(SOCKET_NAME);
        let mut calls = connect(&socket)?;
        let config = PodConfig {
            pause: programs.join("berth-pause"),
            net: true,
            ipc: true,
            uts: true,
            hostname: "berth-bench".into(),
            cgroup: Some(format!("{group}/berth").into()),
            ..PodConfig::default()
        };
        let Reply::PodStarted { pause_pid } = calls.call(&Request::StartPod(config), &[])?.0 else {
            bail!("the monitor did not start the pod");
        };
        let mut events = connect(&socket)?;
        events.call(&Request::Subscribe { after: 0 }, &[])?;
        let mut monitor = Monitor {
            process,
            calls,
            events,
            folder: folder.to_owned(),
            socket,
            specification: specification.clone(),
            pause: pause_pid,
            group,
        };
        for (name, arguments) in [
            (BRIEF, ["/bin/true"].as_slice()),
            (LASTING, &["/bin/sleep", "100000"]),
        ] {
            monitor.write_bundle(name, arguments)?;
        }
        monitor.launch(LASTING, None)?;
        Ok(monitor)
    }

    /// Milliseconds from asking for a container to knowing that its program runs.
    pub fn container(&mut self) -> Result<f64> {
        let asked = Instant::now();
        self.launch(BRIEF, None)?;
        let taken = asked.elapsed();
        self.await_end(BRIEF)?;
        Ok(taken.as_secs_f64() * 1000.0)
    }

    /// Makes and starts one more container; its output goes to `log`.
    pub fn add(&mut self, name: &str, arguments: &[&str], log: Option<&Path>) -> Result<()> {
        self.write_bundle(name, arguments)?;
        self.launch(name, log)
    }

    /// Milliseconds from asking to kill a container to the event that it has ended.
    pub fn killed(&mut self, name: &str) -> Result<f64> {
        let container = name.to_owned();
        let asked = Instant::now();
        let kill = Request::Signal {
            container,
            signal: 9,
            all: true,
        };
        self.calls.call(&kill, &[])?;
        let taken = self.await_end(name)?.duration_since(asked);
        fs::remove_dir_all(self.folder.join(name))?;
        Ok(taken.as_secs_f64() * 1000.0)
    }

    /// When the event came that the container has ended; it is then forgotten.
    fn await_end(&mut self, name: &str) -> Result<Instant> {
        while !matches!(&self.events.next_event()?.kind, EventKind::Exited(record) if record.container == name)
        {
        }
        let ended = Instant::now();
        let container = name.to_owned();
        self.calls.call(&Request::Forget { container }, &[])?;
        Ok(ended)
    }

    /// Milliseconds from asking for a further process to knowing that its program runs.
    pub fn exec(&mut self) -> Result<f64> {
        self.execute().map(|(started, _)| started)
    }

    /// Milliseconds from asking for a further process to knowing that it has ended.
    pub fn executed(&mut self) -> Result<f64> {
        self.execute().map(|(_, ended)| ended)
    }

    fn execute(&mut self) -> Result<(f64, f64)> {
        let null = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        let session = ExecSession {
            container: LASTING.into(),
            process: json!({"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": []}),
            tty: false,
        };
        let asked = Instant::now();
        let mut calls = Connection::connect(&self.socket)?;
        let streams = [null.as_fd(); 3];
        let reply = calls.call(&Request::Exec(Box::new(session)), &streams)?.0;
        let taken = asked.elapsed();
        if !matches!(reply, Reply::ExecStarted { .. }) {
            bail!("the monitor answered {reply:?}");
        }
        calls.next_reply()?; // its end
        let ended = asked.elapsed();
        Ok((taken.as_secs_f64() * 1000.0, ended.as_secs_f64() * 1000.0))
    }

    fn launch(&mut self, id: &str, log: Option<&Path>) -> Result<()> {
        let bundle = self.folder.join(id);
        let spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
        let root = spec["root"]["path"].as_str().context("no root")?;
        let container = LaunchContainer {
            id: id.into(),
            rootfs: Rootfs::Path(root.into()),
            bundle,
            log_path: log.map(Path::to_owned),
            tty: false,
            stdin: false,
            stdin_once: false,
            launcher: LauncherKind::Native,
            cgroup: CgroupMode::Managed { degraded_ok: true },
        };
        match self.calls.call(&Request::Launch(container), &[])?.0 {
            Reply::Launched(_) => Ok(()),
            other => bail!("the monitor answered {other:?}"),
        }
    }

    /// A container that joins the pod's namespaces, as the CRI server writes it.
    fn write_bundle(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let pause = self.pause;
        let mut spec = self.specification.clone();
        spec["process"]["args"] = json!(arguments);
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{name}", self.group));
        spec.as_object_mut().map(|spec| spec.remove("hostname"));
        let namespaces = spec["linux"]["namespaces"].as_array_mut();
        for namespace in namespaces.into_iter().flatten() {
            let shared = SHARED.iter().find(|(kind, _)| namespace["type"] == *kind);
            if let Some((_, file)) = shared {
                namespace["path"] = json!(format!("/proc/{pause}/ns/{file}"));
            }
        }
        let bundle = self.folder.join(name);
        fs::create_dir(&bundle)?;
        fs::write(bundle.join("config.json"), spec.to_string())?;
        Ok(())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // one that is gone already has nothing left to end
        let _ = self.calls.call(&Request::Shutdown, &[]);
        let _ = self.process.wait();
        // an empty group harms nobody
        let _ = hierarchy::remove(&self.group);
    }
}

fn connect(socket: &Path) -> Result<Connection> {
    let begun = Instant::now();
    loop {
        match Connection::connect(socket) {
            Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            done => return done.context("the monitor does not listen"),
        }
    }
}
