//! From a command line to a running monitor, detached from whoever started it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use berth_oci::cgroup::Cgroup;
use berth_sys::process::{CloneArgs, clone_with, close_inherited, exec_fd, try_wait, wait};
use berth_sys::reap;
use berth_sys::seqpacket::Listener;
use berth_sys::signal::{Blocked, SignalFd};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::failure::{RequestError, chain};
use crate::launcher::LaunchFailure;
use crate::launcher::native::Native;
use crate::pod::{Pod, ensure_cgroup};
use crate::protocol::SOCKET_NAME;
use crate::reactor::Reactor;
use crate::server::{RunError, Server};

/// What the process is called in lists of processes.
const NAME: &CStr = c"berth-monitor";
/// Blocks above this size, in bytes, go back to the kernel when freed.
const HEAP_THRESHOLD: i32 = 64 * 1024;
/// What the monitor asks the OOM killer for itself: after the kubelet (−999), before every workload.
const OOM_SCORE_ADJ: i32 = -998;
/// Most bytes taken of what a detached monitor that fails says.
const WORDS_MAX: u64 = 64 * 1024;
/// Exit code of a clone that could not become the monitor.
const EXEC_FAILED: i32 = 127;
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The pod's directory.
    pub directory: PathBuf,
    /// cgroup of the monitor, relative to the cgroup2 mount; where it is when absent.
    pub cgroup: Option<PathBuf>,
    /// Return when ready, and go on in the background.
    pub detach: bool,
}

/// Why the monitor could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pod's directory cannot be used.
    #[error("cannot {step} `{path}`")]
    Directory {
        /// What was tried.
        step: &'static str,
        /// The directory or a file in it.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another monitor serves the directory.
    #[error("a monitor serves `{0}` already")]
    Running(PathBuf),
    /// The cgroup cannot be joined.
    #[error("cannot enter the cgroup `{path}`")]
    Cgroup {
        /// As given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: RequestError,
    },
    /// A property of the process cannot be set.
    #[error("cannot {step}")]
    Process {
        /// What was tried.
        step: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The detached monitor did not start; it said why.
    #[error("{0}")]
    Detached(String),
    /// The loop failed.
    #[error("cannot go on")]
    Run(#[source] RunError),
}

/// Runs the monitor, or starts a detached one and returns when it is ready.
pub fn run(options: &Options) -> Result<(), StartError> {
    if options.detach {
        return detach(options);
    }
    let process = |step| move |source| StartError::Process { step, source };
    // Executed from a descriptor it would have the descriptor's number for a name (execveat(2), "BUGS").
    rustix::thread::set_name(NAME).map_err(|errno| process("name this process")(errno.into()))?;
    // What a careless starter left open would stay open as long as the pod runs.
    close_inherited(&[]).map_err(process("close inherited descriptors"))?;
    berth_sys::memory::keep_small(HEAP_THRESHOLD);
    let _lock = take_directory(&options.directory)?;
    let mut degraded = Vec::new();
    if let Some(cgroup) = &options.cgroup {
        enter_cgroup(cgroup)?;
    }
    let native = Native {
        oom_score_adj: protect(&mut degraded),
    };
    reap::become_subreaper().map_err(process("become the pod's reaper"))?;
    let blocked =
        Blocked::block(&[SIGHUP, SIGINT, SIGTERM, SIGCHLD]).map_err(process("block signals"))?;
    let signals = SignalFd::new(&blocked).map_err(process("watch signals"))?;
    let reactor: Rc<Reactor> = Reactor::new().map_err(process("make an epoll descriptor"))?;
    let pod = Pod::new(options.directory.clone(), &reactor, native, degraded)
        .map_err(process("prepare logs"))?;
    let listener = listen(&options.directory)?;
    let server = Server::new(options.directory.clone(), &reactor, listener, signals, pod)
        .map_err(StartError::Run)?;
    leave_starter().map_err(process("leave the starter's terminal and streams"))?;
    let ran = server.run().map_err(StartError::Run);
    // Nobody must find a socket on which nobody answers.
    let _ = std::fs::remove_file(options.directory.join(SOCKET_NAME));
    ran
}

/// Starts this program again without `--detach` and waits until it has let go of its standard error.
///
/// It is cloned into its cgroup: to move a process that exists costs the kernel a grace period, some 13 ms. Its
/// program is executed from where no container that sees the monitor can open it for writing (CVE-2019-5736).
fn detach(options: &Options) -> Result<(), StartError> {
    let process = |step| move |source| StartError::Process { step, source };
    let cgroup = options.cgroup.as_deref().map(open_cgroup).transpose()?;
    let program = berth_sys::program::own().map_err(process("open this program"))?;
    let arguments = [NAME, c"--dir"].map(CString::from);
    let directory = CString::new(options.directory.as_os_str().as_bytes());
    let directory = directory.map_err(|error| process("pass the directory on")(error.into()))?;
    let arguments = [arguments.as_slice(), &[directory]].concat();
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| process("make a pipe")(errno.into()))?;
    let null = null().map_err(process("open the null device"))?;
    let clone = CloneArgs {
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        ..CloneArgs::default()
    };
    let child = clone_with(&clone, || {
        let streams = rustix::stdio::dup2_stdin(&null)
            .and_then(|()| rustix::stdio::dup2_stdout(&null))
            .and_then(|()| rustix::stdio::dup2_stderr(&write));
        if streams.is_ok() {
            exec_fd(&program, &arguments, &[]);
        }
        EXEC_FAILED
    });
    let child = child.map_err(process("start the detached monitor"))?;
    drop(write);
    let mut said = String::new();
    let read = File::from(read).take(WORDS_MAX).read_to_string(&mut said);
    read.map_err(process("hear from the detached monitor"))?;
    if said.is_empty()
        && try_wait(child.pidfd())
            .map_err(process("look after the detached monitor"))?
            .is_none()
    {
        return Ok(());
    }
    let status = wait(child.pidfd()).map_err(process("wait for the detached monitor"))?;
    let said = said.trim().trim_start_matches("berth-monitor: ");
    Err(StartError::Detached(match said {
        "" => format!("the detached monitor ended with {}", status.code()),
        said => said.to_owned(),
    }))
}

/// Makes the directory ours alone and locks it for as long as the result lives.
fn take_directory(path: &Path) -> Result<File, StartError> {
    let failed = |step| {
        let path = path.to_path_buf();
        move |source| StartError::Directory { step, path, source }
    };
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(failed("make")(errno.into())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| failed("open")(errno.into()))?;
    rustix::fs::fchmod(&directory, Mode::RWXU).map_err(|errno| failed("protect")(errno.into()))?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory.into()),
        Err(rustix::io::Errno::AGAIN) => Err(StartError::Running(path.to_path_buf())),
        Err(errno) => Err(failed("lock")(errno.into())),
    }
}

fn listen(directory: &Path) -> Result<Listener, StartError> {
    let path = directory.join(SOCKET_NAME);
    // The lock is ours, so a socket that is there belongs to a monitor that is gone.
    let _ = std::fs::remove_file(&path);
    Listener::bind(&path)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| StartError::Directory {
            step: "listen at",
            path,
            source,
        })
}

fn open_cgroup(path: &Path) -> Result<Cgroup, StartError> {
    let failed = |source| StartError::Cgroup {
        path: path.to_path_buf(),
        source,
    };
    let absolute = ensure_cgroup(path).map_err(failed)?;
    Cgroup::open(&absolute)
        .map_err(|error| failed(RequestError::Launch(LaunchFailure::Cgroup(error))))
}

fn enter_cgroup(path: &Path) -> Result<(), StartError> {
    let cgroup = open_cgroup(path)?;
    // 0 means the writer itself (cgroup-v2.rst, cgroup.procs).
    cgroup.add_process(0).map_err(|error| StartError::Cgroup {
        path: path.to_path_buf(),
        source: RequestError::Launch(LaunchFailure::Cgroup(error)),
    })
}

/// Lowers the monitor's chance with the OOM killer and returns what it was. Where that is not allowed
/// (no CAP_SYS_RESOURCE), it stays and `degraded` says so.
fn protect(degraded: &mut Vec<String>) -> i32 {
    let file = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(file).unwrap_or_default();
    let before = before.trim().parse().unwrap_or(0);
    if before > OOM_SCORE_ADJ
        && let Err(error) = std::fs::write(file, OOM_SCORE_ADJ.to_string())
    {
        degraded.push(format!("oom_score_adj stays {before}: {error}"));
    }
    before
}

/// Detaches from the starter's session, directory and streams: its death must not reach the pod.
fn leave_starter() -> io::Result<()> {
    // It fails for the leader of a process group, who then leads a session or was started by hand.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    let null = null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// The text of an error for the terminal.
#[must_use]
pub fn explain(error: &StartError) -> String {
    chain(error)
}
