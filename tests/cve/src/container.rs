//! One container, driven by the runtime's command line as an engine drives it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_test_harness::patient;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::arena::Arena;
use crate::bundle::with_probe;
use crate::probe::Report;

/// A call that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// The exit code of a call that was ended.
const HUNG: i32 = -1;
/// That of a call which failed because somebody has the runtime's program open for writing.
const BUSY: i32 = -2;

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Exit code; 128 + n after signal n, -1 when it hung.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// Whether the call did what was asked.
    pub(crate) fn ok(&self) -> bool {
        self.code == 0
    }

    /// The output of a call on which the case stands.
    pub(crate) fn expect(self, verb: &str) -> Result<Self> {
        if self.ok() {
            return Ok(self);
        }
        bail!("{verb} failed ({}): {}", self.code, self.stderr.trim())
    }

    /// The probe's report.
    pub(crate) fn report(&self) -> Result<Report> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("no report: {:?} {:?}", self.stdout, self.stderr))
    }

    /// What the probe printed as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("no JSON: {:?} {:?}", self.stdout, self.stderr))
    }
}

/// A container; what is left of it goes at the end.
pub(crate) struct Container<'a> {
    arena: &'a Arena,
    bundle: PathBuf,
    /// Its id, unique on the machine.
    pub(crate) id: String,
}

impl<'a> Container<'a> {
    /// Names a container that is not made yet.
    pub(crate) fn new(arena: &'a Arena, name: &str, bundle: &Path) -> Self {
        let unique = arena.folder().file_name().unwrap_or_default();
        let unique = unique.to_string_lossy().replace('.', "");
        Self {
            arena,
            bundle: bundle.to_owned(),
            id: format!("{unique}-{name}"),
        }
    }

    /// Makes it, runs it to its end, deletes it.
    pub(crate) fn run(&self) -> Result<Output> {
        self.call(&["run", "ID"])
    }

    /// Makes it. A created container keeps its streams: they lead to files of the bundle.
    pub(crate) fn create(&self) -> Result<Output> {
        let (out, log) = (self.bundle.join("out"), self.bundle.join("create.log"));
        let mut output = self.call_with(&["create", "ID"], |command| {
            command
                .stdout(File::create(&out).map_or_else(|_| Stdio::null(), Stdio::from))
                .stderr(File::create(&log).map_or_else(|_| Stdio::null(), Stdio::from));
        })?;
        output.stderr = fs::read_to_string(log)?;
        Ok(output)
    }

    /// Runs the probe as a further process; `flags` are those of `exec`.
    pub(crate) fn exec(&self, flags: &[&str], arguments: &[&str]) -> Result<Output> {
        let mut line = vec!["exec"];
        line.extend_from_slice(flags);
        line.push("ID");
        line.extend(with_probe(arguments));
        self.call(&line)
    }

    /// The process id of its first process, as the host counts.
    pub(crate) fn pid(&self) -> Result<i32> {
        let output = self.call(&["state", "ID"])?.expect("state")?;
        let pid = output.json()?["pid"].as_i64().context("state has no pid")?;
        Ok(i32::try_from(pid)?)
    }

    /// Removes it, whatever it does.
    pub(crate) fn delete(&self) -> Result<Output> {
        self.call(&["delete", "--force", "ID"])
    }

    /// Calls a verb; `ID` stands for the id.
    pub(crate) fn call(&self, line: &[&str]) -> Result<Output> {
        self.call_with(line, |_| {})
    }

    /// As [`Container::call`], with a change to the command.
    pub(crate) fn call_with(
        &self,
        line: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Output> {
        let (mut out, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = Command::new(self.arena.program());
        command
            .arg("--root")
            .arg(self.arena.state())
            .args(line.iter().map(|word| match *word {
                "ID" => self.id.as_str(),
                word => word,
            }))
            .current_dir(&self.bundle)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(errors.try_clone()?);
        change(&mut command);
        let child = command.spawn();
        // what the caller handed over must not stay open here
        drop(command);
        let code = match child {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => BUSY,
            child => wait(child.context("cannot run the runtime")?)?,
        };
        Ok(Output {
            code,
            stdout: text(&mut out)?,
            stderr: text(&mut errors)?,
        })
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // a runtime that made nothing has nothing to delete
        let _ = self.delete();
    }
}

/// The exit code, or [`HUNG`] after the limit.
fn wait(mut child: Child) -> Result<i32> {
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(patient(LIMIT))?;
    if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))? == 0 {
        child.kill()?;
        child.wait()?;
        return Ok(HUNG);
    }
    let status = child.wait()?;
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
