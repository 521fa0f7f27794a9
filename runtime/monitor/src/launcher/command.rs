//! Containers made by another OCI runtime's program (runc, crun, a sandboxed one).
//!
//! The program is executed for create, start, exec and delete; the container's init comes to the monitor when
//! create ends, because the monitor is its subreaper. A root file system of layers is mounted in the host's table,
//! at `<pod directory>/rootfs/<id>`: the directory is made first and thereby is the record of the mount, and
//! `delete` undoes both.

mod bundle;
mod program;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use berth_oci::cgroup::Host;
use berth_oci::launch::ProcessIo;
use berth_oci::record::{self, Kind};
use berth_oci::spec::config::Process;
use serde_json::value::RawValue;

use super::{Executed, LaunchFailure, Launcher, Started, Target};
use crate::protocol::LaunchContainer;
use crate::stdio::{self, ChildEnds};
use crate::time;
use bundle::Bundle;
use program::Program;

pub use bundle::BundleError;
pub use program::ProgramError;

/// Another runtime.
#[derive(Debug)]
pub struct Command {
    /// The program, its state directory and its driver.
    pub program: PathBuf,
    /// Its `--root`.
    pub root: PathBuf,
    /// Whether to pass `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// The pod's directory.
    pub directory: PathBuf,
    /// `oom_score_adj` of a process whose spec names none.
    pub oom_score_adj: i32,
}

impl Launcher for Command {
    fn start(&self, container: &LaunchContainer) -> Result<Started, LaunchFailure> {
        let bundle = Bundle::make(&self.directory, container, self.oom_score_adj)
            .map_err(LaunchFailure::Bundle)?;
        let started = self.create_and_start(container, &bundle);
        if started.is_err() {
            // The failure at hand is the one to tell; a left state is forced away, as far as it goes.
            let _ = self.delete(&container.id);
        }
        started
    }

    fn exec(
        &self,
        target: &Target<'_>,
        process: &Process,
        io: ProcessIo,
    ) -> Result<Executed, LaunchFailure> {
        let program = self.program(target.id);
        let file = program
            .write_process(process)
            .map_err(LaunchFailure::Program)?;
        let (io, console) = self.streams(target.id, io)?;
        let mut arguments = vec![
            "exec".into(),
            "--detach".into(),
            "--process".into(),
            file.path().into(),
        ];
        if let Some(console) = &console {
            arguments.extend([
                "--console-socket".into(),
                console.path.clone().into_os_string(),
            ]);
        }
        let pid = program
            .run_for_pid(arguments, target.id, io)
            .map_err(LaunchFailure::Program)?;
        Ok(Executed {
            pid: pid.0,
            pidfd: pid.1,
            console: console.map(Console::receive).transpose()?,
            record: self.unverified(Kind::Exec, target.id, pid.0),
        })
    }

    fn delete(&self, id: &str) -> Result<(), LaunchFailure> {
        let deleted = self
            .program(id)
            .run(vec!["delete".into(), "--force".into(), id.into()], None);
        let undone = Bundle::undo(&self.directory, id);
        // Both are tried whatever comes of the first.
        deleted.map_err(LaunchFailure::Program)?;
        undone.map_err(LaunchFailure::Bundle)
    }
}

impl Command {
    fn program(&self, id: &str) -> Program {
        let mut fixed = vec!["--root".into(), self.root.clone().into_os_string()];
        if self.systemd_cgroup {
            fixed.push("--systemd-cgroup".into());
        }
        Program {
            path: self.program.clone(),
            fixed,
            scratch: self.directory.join(format!("runtime-{id}")),
        }
    }

    /// Nobody looked at what the other runtime made: that is recorded.
    fn unverified(&self, kind: Kind, container: &str, pid: i32) -> Option<Box<RawValue>> {
        let launcher = self.program.display().to_string();
        super::json(&record::unverified(kind, container, pid, &launcher))
    }

    fn create_and_start(
        &self,
        container: &LaunchContainer,
        bundle: &Bundle,
    ) -> Result<Started, LaunchFailure> {
        let id = container.id.as_str();
        let program = self.program(id);
        let (ends, io) = if container.tty {
            (None, ProcessIo::Terminal { size: None })
        } else {
            // The runtime itself gives the streams to the container's user.
            let (ends, child) =
                stdio::pipes(container.stdin, None).map_err(LaunchFailure::Stdio)?;
            let io = ProcessIo::Fds {
                stdin: child.stdin,
                stdout: child.stdout,
                stderr: child.stderr,
            };
            (Some(ends), io)
        };
        let (io, console) = self.streams(id, io)?;
        let mut arguments = vec![
            "create".into(),
            "--bundle".into(),
            bundle.path.clone().into_os_string(),
        ];
        if let Some(console) = &console {
            arguments.extend([
                "--console-socket".into(),
                console.path.clone().into_os_string(),
            ]);
        }
        let (pid, pidfd) = program
            .run_for_pid(arguments, id, io)
            .map_err(LaunchFailure::Program)?;
        let ends = match (ends, console) {
            (Some(ends), _) => ends,
            (None, Some(console)) => stdio::terminal(console.receive()?, container.stdin)
                .map_err(LaunchFailure::Stdio)?,
            (None, None) => return Err(LaunchFailure::NoConsole),
        };
        let cgroup = own_cgroup(pid);
        program
            .run(vec!["start".into(), id.into()], None)
            .map_err(LaunchFailure::Program)?;
        Ok(Started {
            pid,
            pidfd,
            ends,
            cgroup,
            started_at: time::now(),
            not_enforced: Vec::new(),
            mounted: bundle.mounted.clone(),
            record: self.unverified(Kind::Start, id, pid),
        })
    }

    /// What the program gets as its standard streams, and where it is to send a terminal.
    fn streams(
        &self,
        id: &str,
        io: ProcessIo,
    ) -> Result<(Option<ChildEnds>, Option<Console>), LaunchFailure> {
        match io {
            ProcessIo::Fds {
                stdin,
                stdout,
                stderr,
            } => {
                let ends = ChildEnds {
                    stdin,
                    stdout,
                    stderr,
                };
                Ok((Some(ends), None))
            }
            ProcessIo::Terminal { .. } => Ok((None, Some(Console::listen(&self.directory, id)?))),
        }
    }
}

/// A socket on which the runtime hands over a terminal's master, gone when dropped.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn listen(directory: &Path, id: &str) -> Result<Self, LaunchFailure> {
        let path = directory.join(format!("console-{id}.sock"));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(LaunchFailure::Stdio)?;
        listener
            .set_nonblocking(true)
            .map_err(LaunchFailure::Stdio)?;
        Ok(Self { listener, path })
    }

    /// Takes the master; the runtime has sent it before it ended.
    fn receive(self) -> Result<OwnedFd, LaunchFailure> {
        let (stream, _) = self
            .listener
            .accept()
            .map_err(|_| LaunchFailure::NoConsole)?;
        stream.set_nonblocking(true).map_err(LaunchFailure::Stdio)?;
        berth_sys::pty::receive_master(&stream).map_err(|_| LaunchFailure::NoConsole)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The cgroup2 directory of `pid`, unless it is the monitor's own.
fn own_cgroup(pid: i32) -> Option<PathBuf> {
    let of = |process: &str| {
        let text = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("0::/").map(str::to_owned))
    };
    let theirs = of(&pid.to_string())?;
    if of("self").as_ref() == Some(&theirs) || theirs.is_empty() {
        return None;
    }
    Some(Host::probe().ok()?.mount.join(theirs))
}
