//! Exec sessions: further processes in a container, each tied to one client's connection.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_oci::cgroup::Cgroup;
use berth_oci::launch::ProcessIo;
use berth_oci::spec;
use berth_sys::process::pidfd_send_signal;
use berth_sys::pty;
use serde_json::value::RawValue;

use super::{Container, Phase, Pod, Process, SIGKILL};
use crate::failure::RequestError;
use crate::launcher::{LaunchFailure, Target};
use crate::protocol::{ExecSession, LauncherKind};

/// Most exec sessions of one pod at a time.
const SESSIONS_MAX: usize = 128;

/// One running process that a client asked for.
#[derive(Debug)]
pub struct Session {
    client: u32,
    container: u32,
    process: Process,
    console: Option<OwnedFd>,
    /// Its own cgroup, absolute.
    cgroup: Option<PathBuf>,
    killed: bool,
}

/// What the client gets when a session has started.
#[derive(Debug)]
pub struct SessionStart {
    /// The session's number.
    pub id: u64,
    /// Process id.
    pub pid: i32,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
    /// Its sandbox record.
    pub record: Option<Box<RawValue>>,
}

/// A session's process was reaped.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// The client that is to be told.
    pub client: u32,
    /// Exit code.
    pub code: i32,
    /// Killing signal.
    pub signal: Option<i32>,
}

impl Pod {
    /// Starts a process for `client` in a running container; `fds` are its standard streams, or none for a
    /// terminal.
    pub fn exec(
        &mut self,
        client: u32,
        request: &ExecSession,
        fds: Vec<OwnedFd>,
    ) -> Result<SessionStart, RequestError> {
        let number = self.number(&request.container)?;
        let container = &self.containers[&number];
        let Phase::Running(init) = &container.phase else {
            return Err(RequestError::NotRunning(request.container.clone()));
        };
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(RequestError::TooMany(SESSIONS_MAX, "exec sessions"));
        }
        let io = process_io(request.tty, fds)?;
        let id = self.next_session;
        self.next_session += 1;
        let process = serde_json::to_vec(&request.process).map_err(RequestError::Decode)?;
        let process = spec::parse_process(&process, Path::new("process"))
            .map_err(|error| RequestError::Launch(LaunchFailure::Load(error)))?;
        let (own, joined) = session_cgroups(container, init.pid, id);
        let target = Target {
            id: &container.id,
            bundle: &container.bundle,
            pid: init.pid,
            cgroup: joined.as_deref(),
        };
        let executed = match self
            .launcher(&container.launcher)
            .exec(&target, &process, io)
        {
            Ok(executed) => executed,
            Err(failure) => {
                if let Some(own) = own {
                    self.cleanup.add(own);
                }
                return Err(RequestError::Launch(failure));
            }
        };
        let console = executed
            .console
            .as_ref()
            .map(OwnedFd::try_clone)
            .transpose();
        let session = Session {
            client,
            container: number,
            process: Process {
                pid: executed.pid,
                pidfd: executed.pidfd,
            },
            // Without a copy only resizing through the monitor is lost; the client has the master.
            console: console.unwrap_or(None),
            cgroup: own,
            killed: false,
        };
        self.sessions.insert(id, session);
        Ok(SessionStart {
            id,
            pid: executed.pid,
            console: executed.console,
            record: executed.record,
        })
    }

    /// Sets the size of a container's or session's terminal.
    pub fn resize(
        &self,
        id: &str,
        exec: Option<u64>,
        rows: u16,
        cols: u16,
    ) -> Result<(), RequestError> {
        let number = self.number(id)?;
        let resized = match exec {
            None => self.streams.resize(number, rows, cols),
            Some(exec) => {
                let session = self
                    .sessions
                    .get(&exec)
                    .filter(|session| session.container == number);
                let session = session.ok_or(RequestError::NoSession(exec))?;
                session
                    .console
                    .as_ref()
                    .map(|console| pty::resize(console, rows, cols))
            }
        };
        resized
            .ok_or(RequestError::NoTerminal)?
            .map_err(|source| RequestError::System {
                step: "resize the terminal".to_owned(),
                source,
            })
    }

    /// The client has gone: its session's processes must go too, those included that left their parent.
    pub fn kill_session(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.killed = true;
        let whole = session
            .cgroup
            .as_deref()
            .map(|path| Cgroup::open(path).and_then(|cgroup| cgroup.kill()));
        if !matches!(whole, Some(Ok(()))) {
            kill_group(&session.process);
        }
    }

    pub(super) fn kill_sessions(&mut self) {
        let all: Vec<u64> = self.sessions.keys().copied().collect();
        for id in all {
            self.kill_session(id);
        }
    }

    /// Takes the end of a session's process; `None` when `pid` is not one.
    pub(super) fn session_ended(
        &mut self,
        pid: i32,
        code: i32,
        signal: Option<i32>,
    ) -> Option<SessionEnd> {
        let found = self
            .sessions
            .iter()
            .find(|(_, session)| session.process.pid == pid);
        let id = *found?.0;
        let session = self.sessions.remove(&id)?;
        if let Some(cgroup) = session.cgroup {
            if session.killed {
                self.cleanup.add(cgroup);
            } else {
                // What it left running in the background stays, as after any shell; the container's end takes it.
                self.cleanup.add_if_empty(cgroup);
            }
        }
        Some(SessionEnd {
            client: session.client,
            code,
            signal,
        })
    }

    /// Whether any session is left.
    pub fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }
}

/// The cgroup made for session `id`, if any, and the one that its process is to be born into.
fn session_cgroups(
    container: &Container,
    init: i32,
    id: u64,
) -> (Option<PathBuf>, Option<PathBuf>) {
    // Another runtime governs its cgroups itself.
    let native = container.launcher == LauncherKind::Native;
    let Some(parent) = container.cgroup.as_deref().filter(|_| native) else {
        return (None, None);
    };
    match own_cgroup(parent, id) {
        Some(own) => (Some(own.clone()), Some(own)),
        // Where the workload has divided its cgroup itself, only where its init is can a process be added.
        None => (
            None,
            Some(cgroup_of(init, parent).unwrap_or_else(|| parent.to_path_buf())),
        ),
    }
}

fn process_io(tty: bool, fds: Vec<OwnedFd>) -> Result<ProcessIo, RequestError> {
    let found = fds.len();
    let mut fds = fds.into_iter();
    match (tty, fds.next(), fds.next(), fds.next(), fds.next()) {
        (true, None, ..) => Ok(ProcessIo::Terminal { size: None }),
        (false, Some(stdin), Some(stdout), Some(stderr), None) => Ok(ProcessIo::Fds {
            stdin,
            stdout,
            stderr,
        }),
        _ => Err(RequestError::Descriptors {
            expected: if tty { 0 } else { 3 },
            found,
        }),
    }
}

/// A cgroup for one session below the container's; `None` where the workload governs what is below.
fn own_cgroup(parent: &Path, id: u64) -> Option<PathBuf> {
    let parent = Cgroup::open(parent).ok()?;
    if !parent
        .read("cgroup.subtree_control")
        .ok()?
        .trim()
        .is_empty()
    {
        return None;
    }
    let own = parent.child(Path::new(&format!("berth-exec-{id}"))).ok()?;
    Some(own.path().to_path_buf())
}

/// The cgroup2 directory in which process `pid` is, if it is at or below `parent`.
fn cgroup_of(pid: i32, parent: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let inside = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = berth_oci::cgroup::Host::probe().ok()?.mount;
    Some(mount.join(inside)).filter(|path| path.starts_with(parent))
}

fn kill_group(process: &Process) {
    // Errors mean that it has ended, which is what is wanted.
    let _ = pidfd_send_signal(&process.pidfd, SIGKILL);
    // Not reaped yet, so the group's number is still its own, if it leads one.
    if let Some(group) = rustix::process::Pid::from_raw(process.pid)
        && rustix::process::getpgid(Some(group)) == Ok(group)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}
