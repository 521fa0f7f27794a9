//! An OCI runtime's command line, as a bench drives it.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::process;

/// The one container that exists at a time.
const ID: &str = "berth-bench";

/// A runtime with a state folder of its own.
#[derive(Clone)]
pub struct Runtime {
    /// Name and version.
    pub name: String,
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    tracer: Vec<String>,
}

impl Runtime {
    /// The runtime at `program`, with its state and pid files below `folder`.
    pub fn new(program: PathBuf, folder: &Path) -> Result<Self> {
        let version = process::output(Command::new(&program).arg("--version"))?;
        let version = version.lines().next().unwrap_or_default();
        let name = version.replace(" version", "");
        let state = folder.join(format!("state-{}", name.replace(' ', "-")));
        Ok(Self {
            name,
            program,
            folder: folder.into(),
            arguments: vec!["--root".into(), state.display().to_string()],
            tracer: Vec::new(),
        })
    }

    /// The same runtime under another program, such as strace with its flags.
    pub fn under(&self, tracer: &[&str]) -> Self {
        Self {
            tracer: tracer.iter().copied().map(String::from).collect(),
            ..self.clone()
        }
    }

    /// create, start, the exit told by pidfd, delete without --force: forced deletes poll.
    pub fn three_processes(&self, bundle: &Path) -> Result<()> {
        let (_, init) = self.create(bundle)?;
        self.call(&["start", ID])?;
        ended(&init)?;
        self.call(&["delete", ID])
    }

    /// Milliseconds from the bundle to a running program: create and start. The rest of its life
    /// is waited for, and not counted.
    pub fn two_processes(&self, bundle: &Path) -> Result<f64> {
        let asked = Instant::now();
        let (_, init) = self.create(bundle)?;
        self.call(&["start", ID])?;
        let taken = asked.elapsed();
        ended(&init)?;
        self.call(&["delete", ID])?;
        Ok(taken.as_secs_f64() * 1000.0)
    }

    /// Creates a container, deletes it, and returns what the runtime told with `--debug`.
    pub fn create_telling(&self, bundle: &Path) -> Result<String> {
        let log = self.folder.join("log");
        let (bundle, file) = (bundle.display().to_string(), log.display().to_string());
        self.call(&["--debug", "--log", &file, "create", "--bundle", &bundle, ID])?;
        self.call(&["delete", "--force", ID])?;
        let text = fs::read_to_string(&log)?;
        fs::remove_file(&log)?;
        Ok(text)
    }

    /// One process from the bundle to the exit.
    pub fn run(&self, bundle: &Path) -> Result<()> {
        self.call(&["run", "--bundle", &bundle.display().to_string(), ID])
    }

    /// What a container of this bundle prints.
    pub fn output(&self, bundle: &Path) -> Result<String> {
        let path = bundle.display().to_string();
        process::output(&mut self.command(&["run", "--bundle", &path, ID]))
    }

    /// A further process in the container that `lasting` holds.
    pub fn exec(&self) -> Result<()> {
        self.call(&["exec", ID, "/bin/true"])
    }

    /// Milliseconds to a further process that runs, without waiting for its end.
    pub fn exec_detached(&self) -> Result<f64> {
        let asked = Instant::now();
        self.call(&["exec", "--detach", ID, "/bin/true"])?;
        Ok(asked.elapsed().as_secs_f64() * 1000.0)
    }

    /// A container that runs until the returned handle is ended.
    pub fn lasting(&self, bundle: &Path) -> Result<Lasting<'_>> {
        let (pid, init) = self.create(bundle)?;
        let lasting = Lasting {
            runtime: self,
            pid,
            init,
        };
        self.call(&["start", ID])?;
        Ok(lasting)
    }

    fn create(&self, bundle: &Path) -> Result<(i32, OwnedFd)> {
        let file = self.folder.join("pid");
        let (path, pid_file) = (bundle.display().to_string(), file.display().to_string());
        self.call(&["create", "--bundle", &path, "--pid-file", &pid_file, ID])?;
        let pid: i32 = fs::read_to_string(&file)?.trim().parse()?;
        fs::remove_file(&file)?;
        let process = Pid::from_raw(pid).context("process id 0")?;
        let init = pidfd_open(process, PidfdFlags::empty());
        Ok((pid, init.context("cannot open the container's process")?))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let line: Vec<&str> = (self.tracer.iter().map(String::as_str))
            .chain(self.program.to_str())
            .chain(self.arguments.iter().map(String::as_str))
            .chain(arguments.iter().copied())
            .collect();
        let mut command = Command::new(line[0]);
        // a terminal's SIGINT is for the bench, which then ends in order
        command
            .args(&line[1..])
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    fn call(&self, arguments: &[&str]) -> Result<()> {
        // files, not pipes: a created container keeps its outputs open
        let mut log = tempfile::tempfile()?;
        let status = self
            .command(arguments)
            .stdout(File::options().write(true).open("/dev/null")?)
            .stderr(log.try_clone()?)
            .status()
            .with_context(|| format!("cannot run {}", self.name))?;
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        log.rewind()?;
        log.read_to_string(&mut text)?;
        bail!("{} {}: {}", self.name, arguments.join(" "), text.trim())
    }
}

/// A running container; dropping it kills and deletes it.
pub struct Lasting<'a> {
    runtime: &'a Runtime,
    pid: i32,
    init: OwnedFd,
}

impl Lasting<'_> {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        // fails only when it has ended by itself
        let _ = pidfd_send_signal(&self.init, Signal::KILL);
        let removed = ended(&self.init).and_then(|()| self.runtime.call(&["delete", ID]));
        if let Err(error) = removed {
            eprintln!("xtask: a container of the bench is left behind: {error:#}");
        }
    }
}

fn ended(init: &OwnedFd) -> Result<()> {
    let wait = || poll(&mut [PollFd::new(init, PollFlags::IN)], None);
    retry_on_intr(wait).context("cannot wait for the exit")?;
    Ok(())
}
