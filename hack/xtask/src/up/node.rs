//! A running `berth` process.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The daemon, started here. Dropping it leaves it running: whoever starts it ends it.
pub struct Node {
    child: Child,
}

impl Node {
    /// Starts `berth` with these arguments; output goes to `log` or to the terminal.
    ///
    /// Where cgroup v2 has no controllers it is told to accept that, and so is the reader.
    pub fn start(programs: &Path, arguments: &[&str], log: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(programs.join("berth"));
        command.args(arguments).stdin(Stdio::null());
        if !limits_are_enforced() {
            eprintln!(
                "xtask: NOTE: cgroup v2 has no controllers on this machine: CPU, memory and pids \
                 limits of pods are NOT enforced and OOMKilled is never reported \
                 (--allow-degraded-cgroups). `cargo xtask up --vm` has them all."
            );
            command.arg("--allow-degraded-cgroups");
        }
        if let Some(log) = log {
            let file = File::options().create(true).append(true).open(log)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        // a terminal's SIGINT must reach it once, through us
        command.process_group(0);
        let child = command.spawn().context("cannot start berth")?;
        Ok(Self { child })
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends it a signal by number.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let signal = Signal::from_named_raw(signal).context("not a signal")?;
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal berth")
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("berth does not end within {} s", limit.as_secs());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// An error when it has ended by itself, with the end of its log.
    pub fn expect_running(&mut self, log: &Path) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("berth ended: {status}\n{}", tail(log, 15));
        }
        Ok(())
    }
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Whether the cgroup2 mount has the controllers that pods' limits need.
pub fn limits_are_enforced() -> bool {
    let controllers =
        cgroup2_mount().and_then(|m| fs::read_to_string(m.join("cgroup.controllers")));
    controllers.is_ok_and(|text| ["cpu", "memory", "pids"].iter().all(|c| has_word(&text, c)))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|have| have == word)
}

fn cgroup2_mount() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut lines = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    lines
        .find_map(|f| (f.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(f[1])))
        .ok_or_else(|| io::Error::other("no cgroup2 mount"))
}
