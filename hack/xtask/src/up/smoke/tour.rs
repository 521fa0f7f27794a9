//! What the steps share: the programs, kubectl, the running daemon, and waiting.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::super::node::{self, Node};
use super::cri_client::CriClient;
use crate::process;

/// Under emulation everything takes longer.
const EMULATED_PATIENCE: u32 = 10;

/// The cluster's data: the tour's own, deleted at the end.
pub const DATA: &str = "/var/lib/berth-tour";

/// The state that steps hand on.
pub struct Tour {
    /// Folder of the five programs.
    pub programs: PathBuf,
    /// kubectl 1.30 or later.
    pub kubectl: PathBuf,
    /// `127.0.0.1:PORT` of the registry with both images.
    pub registry: String,
    /// [`DATA`].
    pub data: PathBuf,
    /// The tour's files and logs.
    pub folder: tempfile::TempDir,
    /// Whether limits of pods are enforced here.
    pub limits: bool,
    /// `berth up`, once it runs.
    pub node: Option<Node>,
    /// Other daemons (`berth cri`, `berth kubelet`) of the steps before.
    pub halves: Vec<Node>,
    /// Our own client of the CRI server.
    pub cri: Option<CriClient>,
    patience: u32,
}

impl Tour {
    /// A tour with these programs; nothing runs yet.
    pub fn new(programs: PathBuf, kubectl: PathBuf, registry: String) -> Result<Self> {
        let emulated = std::fs::read_to_string("/proc/cmdline")?.contains("8250.nr_uarts=0");
        Ok(Self {
            programs,
            kubectl,
            registry,
            data: DATA.into(),
            folder: tempfile::Builder::new().prefix("berth-tour-").tempdir()?,
            limits: node::limits_are_enforced(),
            node: None,
            halves: Vec::new(),
            cri: None,
            patience: if emulated { EMULATED_PATIENCE } else { 1 },
        })
    }

    /// A file of the tour.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Reference of an image in the loopback registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("admin.conf")
    }

    /// Where the daemon's output goes.
    pub fn log(&self) -> PathBuf {
        self.file("berth.log")
    }

    /// kubectl with the kubeconfig and these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path());
        command.args(arguments);
        command
    }

    /// Runs kubectl; anything but exit code 0 is an error with what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        process::output(self.command(arguments).stdin(Stdio::null()))
    }

    /// Runs kubectl with this standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        let mut stdin = child.stdin.take().context("no pipe")?;
        // kubectl may refuse before it reads: its own message tells more than EPIPE
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    /// Runs kubectl, which must fail, and returns what it wrote to standard error.
    pub fn refused(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.feed(arguments, input)?;
        ensure!(
            !output.status.success(),
            "kubectl {} did not fail",
            arguments.join(" ")
        );
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let output = self.feed(&["apply", "-f", "-"], manifest)?;
        if !output.status.success() {
            bail!(
                "kubectl apply: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An object, or a list, as JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let all: Vec<&str> = ["get"]
            .iter()
            .chain(arguments)
            .chain(&["-o", "json"])
            .copied()
            .collect();
        Ok(serde_json::from_str(&self.run(&all)?)?)
    }

    /// Runs a shell command in a pod's container.
    pub fn shell(&self, pod: &str, script: &str) -> Result<String> {
        self.run(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Names of the pods with a label.
    pub fn pods(&self, selector: &str) -> Result<Vec<String>> {
        let list = self.get(&["pods", "-l", selector])?;
        let items = list["items"].as_array().context("no list of pods")?;
        let running = items
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(running
            .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()))
            .collect())
    }

    /// The first pod with a label.
    pub fn pod(&self, selector: &str) -> Result<String> {
        let mut pods = self.pods(selector)?;
        ensure!(!pods.is_empty(), "no pod has the label {selector}");
        Ok(pods.remove(0))
    }

    /// Asks until `ask` succeeds; its last error when the seconds (ten-fold under
    /// emulation) are over.
    pub fn eventually<T>(&mut self, seconds: u32, ask: impl Fn(&Self) -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + self.limit(seconds);
        loop {
            let answer = ask(self);
            if answer.is_ok() || Instant::now() > deadline {
                return answer
                    .with_context(|| format!("not within {} s", self.limit(seconds).as_secs()));
            }
            let log = self.log();
            if let Some(node) = &mut self.node {
                node.expect_running(&log)?;
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// A limit of so many seconds, scaled to this machine.
    pub fn limit(&self, seconds: u32) -> Duration {
        Duration::from_secs(u64::from(seconds * self.patience))
    }

    /// A limit as kubectl takes it.
    pub fn timeout(&self, seconds: u32) -> String {
        format!("--timeout={}s", self.limit(seconds).as_secs())
    }

    /// Starts one of berth's daemons with the tour's data folder.
    pub fn daemon(&self, verb: &str, arguments: &[&str]) -> Result<Node> {
        let configuration = self.file("config.toml");
        std::fs::write(&configuration, self.configuration())?;
        let (data, file) = (
            self.data.display().to_string(),
            configuration.display().to_string(),
        );
        let mut all = vec![verb, "--config", &file];
        if verb == "up" {
            all.extend(["--data-dir", &data]);
        }
        all.extend(arguments);
        Node::start(&self.programs, &all, Some(&self.log()))
    }

    /// Every path that outlives a daemon below the tour's own folder, so that what the
    /// user has configured or keeps is neither used nor touched.
    fn configuration(&self) -> String {
        let data = self.data.display();
        format!(
            "[cri]\ndata_dir = \"{data}/cri\"\nimages.root = \"{data}/images\"\n\
             images.hosts_dir = \"{data}/certs.d\"\ncni.conf_dir = \"{data}/net.d\"\n\
             audit.dir = \"{data}/audit\"\n\
             [kubelet]\nroot_dir = \"{data}/kubelet\"\nstatic_pod_dir = \"{data}/manifests\"\n\
             [server]\ndata_dir = \"{data}/server\"\n"
        )
    }

    /// Ends what still runs, removing every effect, and deletes the tour's data.
    pub fn end(&mut self) -> Result<()> {
        self.cri = None;
        let mut result = Ok(());
        for mut node in self.halves.drain(..).rev().chain(self.node.take()) {
            let ended = node.signal(signal_hook::consts::SIGINT);
            let limit = Duration::from_secs(u64::from(60 * self.patience));
            result = result.and(ended.and_then(|()| node.wait(limit)));
        }
        if self.data.exists() {
            std::fs::remove_dir_all(&self.data).context("cannot delete the tour's data")?;
        }
        result
    }

    /// Says where the logs are, and keeps them when something failed.
    pub fn report(self, keep: bool) {
        if keep {
            eprintln!(
                "xtask: the end of the daemon's log:\n{}",
                node::tail(&self.log(), 25)
            );
            eprintln!(
                "xtask: the tour's files are kept in {}",
                self.folder.keep().display()
            );
        }
    }
}

/// The text, or an error that names what it lacks.
pub fn expect(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "no {part:?} in {:?}", text.trim());
    Ok(())
}

/// Reads a file of the working copy.
pub fn source(path: impl AsRef<Path>) -> Result<String> {
    let path = process::workspace().join(path);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
