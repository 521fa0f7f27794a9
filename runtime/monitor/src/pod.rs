//! The pod: its pause process, its containers and exec sessions, from start to exit record.
//!
//! ```text
//! launch ─▶ Running ──init reaped──▶ Draining ──output in the log, or 30 ms passed──▶ Exited ──forget──▶ gone
//! ```
//!
//! Invariant: every process in `pause`, a Running container or a session is a child of the monitor that has not
//! been reaped, so its number cannot be another process's.

mod cleanup;
mod exec;
mod exit;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use berth_oci::cgroup::{Cgroup, Host};
use berth_oci::launch::{self, LaunchError};
use berth_oci::plan::PodPlan;
use berth_sys::process::pidfd_send_signal;
use rustix::fs::{Mode, OFlags};

use crate::events::EventLog;
use crate::failure::RequestError;
use crate::launcher::command::Command;
use crate::launcher::native::Native;
use crate::launcher::{LaunchFailure, Launcher, Started};
use crate::oom::OomWatch;
use crate::protocol::{
    ContainerState, EventKind, ExitRecord, LaunchContainer, Launched, LauncherKind, PodConfig,
    PodState, VERSION,
};
use crate::reactor::Reactor;
use crate::streams::{Options, Streams};

pub use cleanup::Cleanup;
pub use exec::{Session, SessionEnd};

/// Most containers of one pod, exited ones that are not forgotten included.
pub const CONTAINERS_MAX: usize = 256;
/// Most containers that run at a time. With the other bounds it keeps the monitor below 1024 descriptors, the usual
/// limit of a process.
pub const RUNNING_MAX: usize = 64;
/// Longest container id, in bytes.
const ID_MAX: usize = 128;
const SIGKILL: i32 = 9;
/// Greatest signal number (signal(7)).
const SIGNAL_MAX: i32 = 64;

/// A process of ours that is not reaped yet.
#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

enum Phase {
    Running(Process),
    /// Init is reaped; the last output is on its way.
    Draining {
        record: ExitRecord,
        deadline: Instant,
    },
    Exited(ExitRecord),
}

struct Container {
    id: String,
    bundle: PathBuf,
    launcher: LauncherKind,
    phase: Phase,
    started_at: i64,
    /// Absolute path.
    cgroup: Option<PathBuf>,
    oom: Option<OomWatch>,
    mounted: Option<PathBuf>,
    log_lost: u64,
    /// All output has ended and is in the log.
    drained: bool,
}

/// Everything that the monitor is there for.
pub struct Pod {
    reactor: Rc<Reactor>,
    /// The streams of all containers.
    pub streams: Streams,
    /// What happened, for subscribers.
    pub events: EventLog,
    /// Something of [`Pod::state`] has changed since it was written.
    pub dirty: bool,
    directory: PathBuf,
    native: Native,
    pause: Option<Process>,
    containers: BTreeMap<u32, Container>,
    sessions: BTreeMap<u64, Session>,
    next_container: u32,
    next_session: u64,
    cleanup: Cleanup,
    degraded: Vec<String>,
    /// The pause process was told to end.
    stopping: bool,
}

impl Pod {
    /// A pod that is not started, whose files are in `directory`.
    pub fn new(
        directory: PathBuf,
        reactor: &Rc<Reactor>,
        native: Native,
        degraded: Vec<String>,
    ) -> io::Result<Self> {
        Ok(Self {
            directory,
            reactor: Rc::clone(reactor),
            streams: Streams::new(reactor)?,
            events: EventLog::default(),
            dirty: true,
            native,
            pause: None,
            containers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_container: 1,
            next_session: 1,
            cleanup: Cleanup::default(),
            degraded,
            stopping: false,
        })
    }

    /// Starts the pause process and returns its process id.
    pub fn start(&mut self, config: &PodConfig) -> Result<i32, RequestError> {
        if self.pause.is_some() {
            return Err(RequestError::PodExists);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let pause = rustix::fs::open(&config.pause, flags, Mode::empty()).map_err(|errno| {
            RequestError::System {
                step: format!("open the pause program `{}`", config.pause.display()),
                source: errno.into(),
            }
        })?;
        let cgroup = config.cgroup.as_deref().map(ensure_cgroup).transpose()?;
        let plan = PodPlan {
            pause,
            net: config.net,
            ipc: config.ipc,
            uts: config.uts,
            pid: config.pid,
            hostname: Some(config.hostname.clone()).filter(|name| !name.is_empty()),
            sysctls: config.sysctls.clone(),
            cgroup,
            oom_score_adj: config.oom_score_adj,
        };
        let running = launch::pod(&plan).map_err(launch_failed)?;
        self.pause = Some(Process {
            pid: running.pid,
            pidfd: running.pidfd,
        });
        self.dirty = true;
        berth_sys::memory::trim();
        Ok(running.pid)
    }

    /// Creates and starts a container.
    pub fn launch(&mut self, request: &LaunchContainer) -> Result<Launched, RequestError> {
        check_id(&request.id)?;
        if self.find(&request.id).is_some() {
            return Err(RequestError::ContainerExists(request.id.clone()));
        }
        if self.containers.len() >= CONTAINERS_MAX {
            return Err(RequestError::TooMany(CONTAINERS_MAX, "containers"));
        }
        let running = |container: &&Container| matches!(container.phase, Phase::Running(_));
        if self.containers.values().filter(running).count() >= RUNNING_MAX {
            return Err(RequestError::TooMany(RUNNING_MAX, "running containers"));
        }
        let log = match &request.log_path {
            Some(path) => {
                Some(
                    self.streams
                        .logs()
                        .open(path)
                        .map_err(|source| RequestError::System {
                            step: format!("open the log `{}`", path.display()),
                            source,
                        })?,
                )
            }
            None => None,
        };
        let started = match self.launcher(&request.launcher).start(request) {
            Ok(started) => started,
            Err(failure) => {
                if let Some(log) = log {
                    self.streams.logs().close(log);
                }
                return Err(RequestError::Launch(failure));
            }
        };
        let launched = self.adopt(request, started, log);
        berth_sys::memory::trim();
        launched
    }

    /// Takes over a container that was just started.
    fn adopt(
        &mut self,
        request: &LaunchContainer,
        started: Started,
        log: Option<u32>,
    ) -> Result<Launched, RequestError> {
        let number = self.next_container;
        self.next_container += 1;
        let launched = Launched {
            pid: started.pid,
            started_at: started.started_at,
            not_enforced: started.not_enforced,
            record: started.record,
        };
        let oom = started.cgroup.as_deref();
        let container = Container {
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            launcher: request.launcher.clone(),
            oom: oom.and_then(|cgroup| OomWatch::open(&self.reactor, cgroup, number)),
            phase: Phase::Running(Process {
                pid: started.pid,
                pidfd: started.pidfd,
            }),
            started_at: started.started_at,
            cgroup: started.cgroup,
            mounted: started.mounted,
            log_lost: 0,
            drained: false,
        };
        self.containers.insert(number, container);
        let options = Options {
            tty: request.tty,
            stdin_once: request.stdin_once,
        };
        let added = self.streams.add(number, started.ends, log, options);
        self.events.push(EventKind::Started {
            container: request.id.clone(),
            pid: launched.pid,
            started_at: launched.started_at,
        });
        self.dirty = true;
        if let Err(source) = added {
            // It runs, but nobody would read its output: end it; its record tells.
            self.kill(number);
            return Err(RequestError::System {
                step: "watch the container's output".to_owned(),
                source,
            });
        }
        Ok(launched)
    }

    /// Sends a signal to a container's init or to all its processes; nothing happens when it has ended.
    pub fn signal(&mut self, id: &str, signal: i32, all: bool) -> Result<(), RequestError> {
        if !(0..=SIGNAL_MAX).contains(&signal) {
            return Err(RequestError::invalid(
                "signal",
                format!("{signal} is no signal number"),
            ));
        }
        let number = self.number(id)?;
        let container = &self.containers[&number];
        let Phase::Running(init) = &container.phase else {
            return Ok(());
        };
        match (&container.cgroup, all) {
            (Some(cgroup), true) if signal == SIGKILL => Cgroup::open(cgroup)
                .and_then(|cgroup| cgroup.kill())
                .map_err(|error| RequestError::System {
                    step: format!("kill the processes of `{id}`"),
                    source: io::Error::other(crate::failure::chain(&error)),
                }),
            (Some(cgroup), true) => {
                signal_below(cgroup, signal);
                Ok(())
            }
            _ => match pidfd_send_signal(&init.pidfd, signal) {
                Err(error)
                    if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) =>
                {
                    Err(RequestError::System {
                        step: format!("send signal {signal} to `{id}`"),
                        source: error,
                    })
                }
                _ => Ok(()),
            },
        }
    }

    /// Forgets a container that has exited.
    pub fn forget(&mut self, id: &str) -> Result<(), RequestError> {
        let Some(number) = self.find(id) else {
            return Ok(());
        };
        match self.containers[&number].phase {
            Phase::Running(_) => return Err(RequestError::StillRunning(id.to_owned())),
            Phase::Draining { .. } => self.finish(number),
            Phase::Exited(_) => {}
        }
        self.containers.remove(&number);
        self.streams.remove(number);
        self.dirty = true;
        Ok(())
    }

    /// The number under which streams know the container `id`.
    pub fn number(&self, id: &str) -> Result<u32, RequestError> {
        self.find(id)
            .ok_or_else(|| RequestError::NoContainer(id.to_owned()))
    }

    fn find(&self, id: &str) -> Option<u32> {
        let found = self
            .containers
            .iter()
            .find(|(_, container)| container.id == id);
        found.map(|(number, _)| *number)
    }

    fn launcher(&self, kind: &LauncherKind) -> Box<dyn Launcher> {
        match kind {
            LauncherKind::Native => Box::new(self.native),
            LauncherKind::Command {
                binary,
                root,
                systemd_cgroup,
            } => Box::new(Command {
                program: binary.clone(),
                root: root.clone(),
                systemd_cgroup: *systemd_cgroup,
                directory: self.directory.clone(),
                oom_score_adj: self.native.oom_score_adj,
            }),
        }
    }

    /// Some bytes of a container's output are lost.
    pub fn lost(&mut self, number: u32, bytes: u64) {
        if let Some(container) = self.containers.get_mut(&number) {
            container.log_lost += bytes;
            self.dirty = true;
        }
    }

    /// memory.events of a container has changed.
    pub fn memory_changed(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else {
            return;
        };
        if container.oom.as_mut().is_some_and(OomWatch::changed) {
            let container = container.id.clone();
            self.events.push(EventKind::Oom { container });
        }
    }

    /// All that is known.
    pub fn state(&self) -> PodState {
        let mount = Host::probe().map(|host| host.mount).unwrap_or_default();
        let containers = self.containers.values().map(|container| {
            let (pid, exit) = match &container.phase {
                Phase::Running(init) => (Some(init.pid), None),
                // As with the event: whoever sees the record may read the log at once.
                Phase::Draining { .. } => (None, None),
                Phase::Exited(record) => (None, Some(record.clone())),
            };
            let relative = |path: &PathBuf| path.strip_prefix(&mount).map(Path::to_path_buf).ok();
            ContainerState {
                id: container.id.clone(),
                pid,
                started_at: container.started_at,
                cgroup: container.cgroup.as_ref().and_then(relative),
                launcher: container.launcher.clone(),
                mounted: container.mounted.clone(),
                log_lost: container.log_lost,
                exit,
            }
        });
        PodState {
            version: VERSION,
            monitor_pid: std::process::id().cast_signed(),
            pause_pid: self.pause.as_ref().map(|pause| pause.pid),
            last_event: self.events.last(),
            degraded: self.degraded.clone(),
            containers: containers.collect(),
        }
    }
}

/// Makes the cgroup `path`, which is relative to the cgroup2 mount, and returns its absolute path.
pub fn ensure_cgroup(path: &Path) -> Result<PathBuf, RequestError> {
    let failed =
        |error: berth_oci::cgroup::CgroupError| RequestError::Launch(LaunchFailure::Cgroup(error));
    let host = Host::probe().map_err(failed)?;
    let relative = path.strip_prefix(&host.mount).unwrap_or(path);
    let relative = relative.strip_prefix("/").unwrap_or(relative);
    let cgroup = Cgroup::create(&host, relative).map_err(failed)?;
    Ok(cgroup.path().to_path_buf())
}

/// Sends a signal to every process in the cgroup and below. One that is gone meanwhile is no error.
fn signal_below(cgroup: &Path, signal: i32) {
    let Ok(group) = Cgroup::open(cgroup) else {
        return;
    };
    for pid in group.processes().unwrap_or_default() {
        if let Ok(pidfd) = berth_sys::process::pidfd_open(pid) {
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }
    let Ok(children) = std::fs::read_dir(cgroup) else {
        return;
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            signal_below(&child.path(), signal);
        }
    }
}

fn launch_failed(error: LaunchError) -> RequestError {
    RequestError::Launch(LaunchFailure::Runtime(error))
}

/// An id becomes part of paths and messages, so it must be one plain path component.
fn check_id(id: &str) -> Result<(), RequestError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte);
    if id.is_empty()
        || id.len() > ID_MAX
        || !id.bytes().all(plain)
        || id.bytes().all(|byte| byte == b'.')
    {
        return Err(RequestError::invalid(
            "id",
            "must be 1 to 128 letters, digits, `_`, `-`, `.` or `+`",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_plain_path_component() {
        for id in ["a", "nginx-1_2.3+x", &"a".repeat(128)] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a\n", "ü", &"a".repeat(129)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
