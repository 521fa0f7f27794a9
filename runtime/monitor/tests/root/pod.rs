//! A pod directory with a monitor, and bundles for it, all gone at the end.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_monitor::client::{CallError, Connection};
use berth_monitor::protocol::*;
use serde_json::value::RawValue;

/// Programs of the host which the test containers need.
const PROGRAMS: [&str; 9] = [
    "sh", "cat", "sleep", "echo", "stty", "kill", "head", "id", "seq",
];

static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Pod {
    pub base: PathBuf,
    /// The monitor, unless another process started it.
    monitor: Option<Child>,
    cgroup: String,
    shares_pids: bool,
}

/// True, and said so, when the test cannot run.
pub fn skipped() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    assert!(std::env::var_os("BERTH_REQUIRE_ALL").is_none(), "not root");
    println!("skipped: not root");
    true
}

/// The pause program runs in an empty root, so it has to be static, which test builds are not: it is built once more.
fn pause_program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = std::env::var_os("BERTH_PAUSE") {
        return path.into();
    }
    let build = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "berth-pause", "--target", &target])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_TARGET_DIR", &folder)
            .status()
            .unwrap();
        assert!(status.success());
        folder.join(target).join("debug/berth-pause")
    };
    BUILT.get_or_init(build).clone()
}

fn exec_request(id: &str, script: &str, tty: bool) -> Request {
    let process = serde_json::json!({
        "terminal": tty,
        "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/"
    });
    Request::Exec(Box::new(ExecSession {
        container: id.into(),
        process,
        tty,
    }))
}

fn monitor_program() -> PathBuf {
    std::env::var_os("BERTH_MONITOR")
        .map_or_else(|| env!("CARGO_BIN_EXE_berth-monitor").into(), PathBuf::from)
}

impl Pod {
    /// Starts a monitor and its pause process.
    pub fn start() -> Self {
        Self::with(false, "")
    }

    /// Like [`Pod::start`], with a monitor that does one thing other than planned
    /// ([`berth_oci::fault`]).
    pub fn with_fault(fault: &str) -> Self {
        Self::with(false, fault)
    }

    /// Like [`Pod::start`], with one PID namespace for all containers.
    pub fn sharing_pids() -> Self {
        Self::with(true, "")
    }

    fn with(pid: bool, fault: &str) -> Self {
        let mut pod = Self::failing_at(fault);
        pod.shares_pids = pid;
        let config = PodConfig {
            pause: pause_program(),
            hostname: "berth-test".into(),
            net: true,
            ipc: true,
            uts: true,
            pid,
            cgroup: Some(format!("{}/berth", pod.cgroup).into()),
            ..PodConfig::default()
        };
        let (reply, _) = pod.connect().call(&Request::StartPod(config), &[]).unwrap();
        assert!(matches!(reply, Reply::PodStarted { pause_pid } if pause_pid > 0));
        pod
    }

    /// The pod of a process that was killed, so that nothing of it was dropped; `told` is [`Pod::tell`]'s line.
    pub fn adopt(told: &str) -> Self {
        let (base, cgroup) = told.trim().split_once(' ').unwrap();
        Self {
            base: base.into(),
            monitor: None,
            cgroup: cgroup.into(),
            shares_pids: false,
        }
    }

    /// What another process needs to adopt this pod, in one line.
    pub fn tell(&self) -> String {
        format!("{} {}", self.base.display(), self.cgroup)
    }

    /// Starts a monitor only.
    pub fn bare() -> Self {
        Self::failing_at("")
    }

    fn failing_at(fault: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("berth-monitor-test-{}-{number}", std::process::id());
        let base = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&base).unwrap();
        let monitor = Command::new(monitor_program())
            .arg("--dir")
            .arg(base.join("pod"))
            .args(["--cgroup", &format!("{name}/berth")])
            .env(berth_oci::fault::VARIABLE, fault)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let pod = Self {
            base,
            monitor: Some(monitor),
            cgroup: name,
            shares_pids: false,
        };
        wait_until("the monitor listens", || {
            Connection::connect(&pod.socket()).is_ok()
        });
        pod
    }

    pub fn directory(&self) -> PathBuf {
        self.base.join("pod")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory().join(SOCKET_NAME)
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.base.join(format!("{id}.log"))
    }

    pub fn log_text(&self, id: &str) -> String {
        std::fs::read_to_string(self.log(id)).unwrap()
    }

    pub fn connect(&self) -> Connection {
        Connection::connect(&self.socket()).unwrap()
    }

    pub fn state(&self) -> PodState {
        match self.connect().call(&Request::State, &[]).unwrap().0 {
            Reply::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// A bundle that runs a shell script, and the request to launch it.
    pub fn container(&self, id: &str, script: &str) -> LaunchContainer {
        let bundle = self.base.join(id);
        let rootfs = self.rootfs();
        std::fs::create_dir_all(&bundle).unwrap();
        let pause = self.state().pause_pid.unwrap();
        let pids = if self.shares_pids {
            serde_json::json!({ "type": "pid", "path": format!("/proc/{pause}/ns/pid") })
        } else {
            serde_json::json!({ "type": "pid" })
        };
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin", "TERM=xterm"],
                "cwd": "/",
                "noNewPrivileges": true
            },
            "root": { "path": rootfs, "readonly": true },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }
            ],
            "linux": {
                "cgroupsPath": format!("/{}/{id}", self.cgroup),
                "namespaces": [
                    pids, { "type": "mount" }, { "type": "cgroup" },
                    { "type": "network", "path": format!("/proc/{pause}/ns/net") },
                    { "type": "ipc", "path": format!("/proc/{pause}/ns/ipc") },
                    { "type": "uts", "path": format!("/proc/{pause}/ns/uts") }
                ]
            }
        });
        std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        LaunchContainer {
            id: id.into(),
            bundle,
            rootfs: Rootfs::Path(rootfs),
            log_path: Some(self.log(id)),
            tty: false,
            stdin: false,
            stdin_once: false,
            launcher: LauncherKind::Native,
            cgroup: CgroupMode::Managed { degraded_ok: true },
        }
    }

    /// Changes a bundle's configuration.
    pub fn edit(&self, id: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.base.join(id).join("config.json");
        let mut spec = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut spec);
        std::fs::write(path, spec.to_string()).unwrap();
    }

    pub fn launch(&self, container: &LaunchContainer) -> Launched {
        match self
            .connect()
            .call(&Request::Launch(container.clone()), &[])
            .unwrap()
            .0
        {
            Reply::Launched(launched) => launched,
            other => panic!("{other:?}"),
        }
    }

    pub fn signal(&self, id: &str, signal: i32, all: bool) {
        let request = Request::Signal {
            container: id.into(),
            signal,
            all,
        };
        self.connect().call(&request, &[]).unwrap();
    }

    pub fn exec(
        &self,
        id: &str,
        script: &str,
        tty: bool,
        fds: &[BorrowedFd<'_>],
    ) -> (Connection, u64, i32, Vec<OwnedFd>) {
        let mut connection = self.connect();
        let (reply, fds) = connection
            .call(&exec_request(id, script, tty), fds)
            .unwrap();
        let Reply::ExecStarted { exec_id, pid, .. } = reply else {
            panic!("{reply:?}")
        };
        (connection, exec_id, pid, fds)
    }

    /// Starts a script in a container and returns the record of its process.
    pub fn exec_record(&self, id: &str, script: &str) -> Option<Box<RawValue>> {
        let mut options = std::fs::File::options();
        let null = options.read(true).write(true).open("/dev/null").unwrap();
        let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
        let (reply, _) = self
            .connect()
            .call(&exec_request(id, script, false), &fds)
            .unwrap();
        match reply {
            Reply::ExecStarted { record, .. } => record,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script in a container and returns its output and exit code.
    pub fn exec_output(&self, id: &str, script: &str) -> (String, i32) {
        let null = std::fs::File::open("/dev/null").unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (mut connection, ..) = self.exec(
            id,
            script,
            false,
            &[null.as_fd(), write.as_fd(), write.as_fd()],
        );
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        match connection.next_reply().unwrap().0 {
            Reply::ExecExited { code, .. } => (text, code),
            other => panic!("{other:?}"),
        }
    }

    pub fn exit_of(&self, id: &str) -> ExitRecord {
        let mut found = None;
        wait_until("the container exits", || {
            let state = self.state();
            let container = state
                .containers
                .into_iter()
                .find(|container| container.id == id)
                .unwrap();
            found = container.exit;
            found.is_some()
        });
        found.unwrap()
    }

    pub fn kind_of_failure(&self, request: &Request) -> ErrorKind {
        match self.connect().call(request, &[]) {
            Err(CallError::Refused { code, message, .. }) => {
                println!("{message}");
                code
            }
            other => panic!("{other:?}"),
        }
    }

    /// The host's programs and their libraries, as a root file system.
    fn rootfs(&self) -> PathBuf {
        let rootfs = self.base.join("rootfs");
        if rootfs.exists() {
            return rootfs;
        }
        for folder in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        for program in PROGRAMS {
            let Some(path) = ["/bin", "/usr/bin"]
                .iter()
                .map(|folder| Path::new(folder).join(program))
                .find(|path| path.exists())
            else {
                continue;
            };
            std::fs::copy(&path, rootfs.join("bin").join(program)).unwrap();
            let listed = Command::new("ldd").arg(&path).output().unwrap();
            for library in String::from_utf8_lossy(&listed.stdout)
                .split_whitespace()
                .filter(|word| word.starts_with('/'))
            {
                let inside = rootfs.join(library.trim_start_matches('/'));
                std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
                std::fs::copy(library, inside).unwrap();
            }
        }
        rootfs
    }

    /// Ends the pod by request and proves that nothing is left.
    pub fn shutdown(mut self) {
        let (reply, _) = self.connect().call(&Request::Shutdown, &[]).unwrap();
        assert!(matches!(reply, Reply::Done));
        if let Some(monitor) = &mut self.monitor {
            assert!(monitor.wait().unwrap().success());
        }
        wait_until("the socket is gone", || !self.socket().exists());
        assert!(!self.socket().exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.base.to_str().unwrap()),
            "a mount is left"
        );
        let left = self.cgroups();
        let pod = [self.cgroup_path(), self.cgroup_path().join("berth")];
        assert!(
            left.iter().all(|path| pod.contains(path)),
            "cgroups are left: {left:?}"
        );
        for path in &left {
            // The monitor of an adopted pod is nobody's child here: its end is seen in its group.
            wait_until("no process is left", || {
                std::fs::read_to_string(path.join("cgroup.procs")).unwrap() == ""
            });
        }
    }

    pub fn cgroup_path(&self) -> PathBuf {
        berth_oci::cgroup::Host::probe()
            .unwrap()
            .mount
            .join(&self.cgroup)
    }

    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = vec![self.cgroup_path()];
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            found.extend(
                entries
                    .filter(|entry| entry.file_type().unwrap().is_dir())
                    .map(|entry| entry.path()),
            );
        }
        found
    }

    pub fn monitor_pid(&self) -> u32 {
        self.monitor.as_ref().unwrap().id()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A test that failed leaves the monitor running: take everything down by cgroup.
        let _ = std::fs::write(self.cgroup_path().join("cgroup.kill"), "1");
        if let Some(monitor) = &mut self.monitor {
            let _ = monitor.kill();
            let _ = monitor.wait();
        }
        if let Ok(cgroup) = berth_oci::cgroup::Cgroup::open(&self.cgroup_path()) {
            let _ = cgroup.remove();
        }
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

/// Polls for at most ten seconds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
