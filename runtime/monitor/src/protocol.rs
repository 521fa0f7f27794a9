//! What the daemon and a pod's monitor say to each other: JSON messages over a SEQPACKET socket.
//!
//! ```text
//! daemon                                   monitor
//!   Hello{version}              ─────────▶          always first
//!                               ◀─────────  Hello{version,pid} | Error(UnsupportedVersion)
//!   any other request           ─────────▶
//!                               ◀─────────  exactly one reply
//!   Exec        + fds           ─────────▶          the connection is now the session's:
//!                               ◀─────────  ExecStarted (+ pty master) … ExecExited
//!   Attach      + fds           ─────────▶          the connection is now the attachment's:
//!                               ◀─────────  Attached … AttachEnded
//!   Subscribe{after}            ─────────▶          the connection is now a stream:
//!                               ◀─────────  Subscribed, Event, Event …
//! ```
//!
//! Closing a session's connection kills the executed process; closing an attachment's detaches; closing any
//! other does nothing. A field may be added if absence means what the previous release did; any other change
//! raises [`VERSION`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of this protocol. A monitor answers every version from [`OLDEST_VERSION`] to its own.
pub const VERSION: u32 = 1;
/// Oldest version that a daemon or monitor of this release still speaks.
pub const OLDEST_VERSION: u32 = 1;
/// Name of the listening socket in the pod's directory.
pub const SOCKET_NAME: &str = "monitor.sock";
/// Name of the state file in the pod's directory: a JSON [`PodState`].
pub const STATE_NAME: &str = "monitor.json";

/// What the daemon asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Opens the connection.
    Hello {
        /// The daemon's [`VERSION`].
        version: u32,
    },
    /// Starts the pause process with the pod's namespaces; once per monitor. Answer: [`Reply::PodStarted`].
    StartPod(PodConfig),
    /// Creates and starts a container. Answer: [`Reply::Launched`].
    Launch(LaunchContainer),
    /// Sends a signal. Answer: [`Reply::Done`], also when the container has exited already.
    Signal {
        /// Container id.
        container: String,
        /// Number (signal(7)).
        signal: i32,
        /// To every process of the container instead of its init; SIGKILL then is `cgroup.kill`.
        #[serde(default)]
        all: bool,
    },
    /// Runs one more process in a container. Without a terminal three descriptors go along: standard input,
    /// output and error, which the process gets as they are. Answers: [`Reply::ExecStarted`], at the end
    /// [`Reply::ExecExited`].
    Exec(Box<ExecSession>),
    /// Connects the caller's descriptors with a container's streams. One descriptor goes along for each flag
    /// that is set, in the order stdin, stdout, stderr; each must be pollable (pipe, socket, terminal) and
    /// becomes non-blocking. A container with a terminal has no stderr. Answers: [`Reply::Attached`], after
    /// the last output [`Reply::AttachEnded`].
    Attach {
        /// Container id.
        container: String,
        /// Feed the container's standard input.
        #[serde(default)]
        stdin: bool,
        /// Receive its standard output, or all output of its terminal.
        #[serde(default)]
        stdout: bool,
        /// Receive its standard error.
        #[serde(default)]
        stderr: bool,
    },
    /// Sets the size of a terminal. Answer: [`Reply::Done`].
    Resize {
        /// Container id.
        container: String,
        /// The exec session; the container's own terminal when absent.
        #[serde(default)]
        exec_id: Option<u64>,
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        cols: u16,
    },
    /// Opens the log path anew, after the file was renamed. Answer: [`Reply::Done`], when everything read
    /// before is in the old file.
    ReopenLog {
        /// Container id.
        container: String,
    },
    /// Closes the container's standard input. Answer: [`Reply::Done`].
    CloseStdin {
        /// Container id.
        container: String,
    },
    /// Asks for everything that the monitor knows. Answer: [`Reply::State`].
    State,
    /// Drops the record of a container that has exited. Answer: [`Reply::Done`], also for an unknown id.
    Forget {
        /// Container id.
        container: String,
    },
    /// Turns the connection into a stream of events with `seq > after`. Answers: [`Reply::Subscribed`], then
    /// [`Reply::Event`] without end.
    Subscribe {
        /// Sequence number of the last event that the caller has; 0 for none.
        after: u64,
    },
    /// Kills every container, stops the pause process, answers [`Reply::Done`] and exits.
    Shutdown,
}

/// What the monitor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// The monitor's [`VERSION`].
        version: u32,
        /// The monitor's process id in its own PID namespace.
        pid: i32,
    },
    /// To [`Request::StartPod`].
    PodStarted {
        /// Process id of the pause process, whose `/proc/<pid>/ns/*` are the pod's namespaces.
        pause_pid: i32,
    },
    /// To [`Request::Launch`].
    Launched(Launched),
    /// To [`Request::Exec`]; with a terminal its master goes along.
    ExecStarted {
        /// Names the session in [`Request::Resize`]; unique within this monitor.
        exec_id: u64,
        /// Process id.
        pid: i32,
        /// What the kernel gave this process, as in [`Launched::record`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<RawValue>>,
    },
    /// The process of this connection's session has ended.
    ExecExited {
        /// Exit status 0–255; 128 + signal when a signal killed it.
        code: i32,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// To [`Request::Attach`].
    Attached,
    /// The attached container's output has ended.
    AttachEnded,
    /// To [`Request::State`].
    State(PodState),
    /// To [`Request::Subscribe`].
    Subscribed {
        /// Sequence number of the newest event; 0 when there was none.
        last: u64,
        /// Events after the asked number were dropped (the monitor keeps the newest [`EVENTS_KEPT`]):
        /// the caller must ask for [`Request::State`].
        missed: bool,
    },
    /// One event of a subscription.
    Event(Event),
    /// The request was carried out and there is nothing to tell.
    Done,
    /// The request failed; nothing of it remains.
    Error {
        /// What kind of failure, to decide upon.
        code: ErrorKind,
        /// For people: the step that failed, its object and the cause.
        message: String,
        /// The sandbox record of a start that was refused because it differs from what was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<RawValue>>,
    },
}

/// Newest events which a monitor keeps for subscribers to come.
pub const EVENTS_KEPT: usize = 256;

/// Kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The versions do not meet.
    UnsupportedVersion,
    /// The request breaks the protocol: not JSON, unknown, out of order, wrong number of descriptors.
    Protocol,
    /// A field's value is not acceptable.
    Invalid,
    /// No such container or exec session.
    NotFound,
    /// The id is taken, or the pod is already started.
    AlreadyExists,
    /// The container does not run any more, or has no such stream.
    NotRunning,
    /// The sandbox path refused: the message is the runtime's.
    Launch,
    /// A bound was reached: connections, containers, sessions.
    TooMany,
    /// The operating system refused something else.
    System,
}

/// What the pod's pause process is to hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PodConfig {
    /// Path of the `berth-pause` binary.
    pub pause: PathBuf,
    /// Host name for the new UTS namespace; at most 64 bytes.
    #[serde(default)]
    pub hostname: String,
    /// Make a new network namespace (its loopback stays down: that is the network plugins' job).
    #[serde(default)]
    pub net: bool,
    /// Make a new IPC namespace.
    #[serde(default)]
    pub ipc: bool,
    /// Make a new UTS namespace.
    #[serde(default)]
    pub uts: bool,
    /// Make a new PID namespace, to be shared by the pod's containers.
    #[serde(default)]
    pub pid: bool,
    /// Namespaced sysctls by dotted name.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// cgroup of the pause process, relative to the cgroup2 mount; the monitor's own when absent.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// `oom_score_adj` of the pause process, −1000–1000; inherited when absent.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
}

/// A container to create and start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchContainer {
    /// Unique in the pod.
    pub id: String,
    /// Directory with the OCI `config.json`.
    pub bundle: PathBuf,
    /// Where its root file system comes from.
    pub rootfs: Rootfs,
    /// CRI log file; its directory must exist. Output is discarded when absent.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Give it a terminal; must equal `process.terminal` of the spec.
    #[serde(default)]
    pub tty: bool,
    /// Keep its standard input open for attachments; /dev/null otherwise.
    #[serde(default)]
    pub stdin: bool,
    /// Close its standard input when the first attachment with stdin ends.
    #[serde(default)]
    pub stdin_once: bool,
    /// Who starts it.
    #[serde(default)]
    pub launcher: LauncherKind,
    /// What to do with cgroups.
    #[serde(default)]
    pub cgroup: CgroupMode,
}

/// Where a root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory.
    Path(PathBuf),
    /// Image layers and a writable directory on top.
    Overlay {
        /// Read-only layers, topmost first.
        lower: Vec<PathBuf>,
        /// Receives the changes.
        upper: PathBuf,
        /// The overlay's work directory, on the file system of `upper`.
        work: PathBuf,
        /// Mount it read-only.
        #[serde(default)]
        readonly: bool,
    },
}

/// Who starts a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherKind {
    /// The runtime linked into the monitor.
    #[default]
    Native,
    /// Another OCI runtime's binary.
    Command {
        /// Path of the binary (runc, crun …).
        binary: PathBuf,
        /// Its state directory (`--root`).
        root: PathBuf,
        /// Pass `--systemd-cgroup`.
        #[serde(default)]
        systemd_cgroup: bool,
    },
}

/// What to do with the cgroup named by the spec's `linux.cgroupsPath`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupMode {
    /// Leave cgroups alone.
    Disabled,
    /// Create it, apply the spec's limits, remove it at the end.
    Managed {
        /// Accept limits that this host cannot enforce; they come back in [`Launched::not_enforced`].
        degraded_ok: bool,
    },
}

impl Default for CgroupMode {
    fn default() -> Self {
        Self::Managed { degraded_ok: false }
    }
}

/// A container that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launched {
    /// Process id of its init.
    pub pid: i32,
    /// When it was let go: nanoseconds since 1970, UTC.
    pub started_at: i64,
    /// Limits of the spec which this host does not enforce, one line for people each.
    #[serde(default)]
    pub not_enforced: Vec<String>,
    /// The sandbox record: what was asked next to what the kernel reported before the program's first
    /// instruction. Absent from monitors of releases without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RawValue>>,
}

/// A process to run in a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecSession {
    /// Container id.
    pub container: String,
    /// The OCI `process` object.
    pub process: serde_json::Value,
    /// Give it a terminal; its master is sent with [`Reply::ExecStarted`].
    #[serde(default)]
    pub tty: bool,
}

/// Everything that the monitor knows about its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// The monitor's [`VERSION`].
    pub version: u32,
    /// The monitor's process id.
    pub monitor_pid: i32,
    /// Process id of the pause process; `None` before the pod was started and after pause ended.
    pub pause_pid: Option<i32>,
    /// Sequence number of the newest event; 0 when there was none.
    pub last_event: u64,
    /// What the monitor could not do for itself for lack of privilege.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// All containers not forgotten, by id.
    pub containers: Vec<ContainerState>,
}

/// One container, running or exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Container id.
    pub id: String,
    /// Process id of its init, while it runs.
    pub pid: Option<i32>,
    /// When it was let go: nanoseconds since 1970, UTC.
    pub started_at: i64,
    /// Its cgroup, relative to the cgroup2 mount, where it has one of its own.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Who started it, with what is needed to delete it should the monitor die.
    #[serde(default)]
    pub launcher: LauncherKind,
    /// The mount point of its root file system in the host's table (command launcher only).
    #[serde(default)]
    pub mounted: Option<PathBuf>,
    /// Bytes of output that could not be written to the log.
    #[serde(default)]
    pub log_lost: u64,
    /// How it ended; complete when its last output is in the log or 30 ms have passed, so for that long a
    /// container can have neither a process id nor a record.
    pub exit: Option<ExitRecord>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Container id.
    pub container: String,
    /// Exit status 0–255; 128 + signal when a signal killed it.
    pub code: i32,
    /// The signal that killed its init.
    pub signal: Option<i32>,
    /// It ended with a failure and the kernel's memory.events count an OOM kill in its cgroup.
    pub oom_killed: bool,
    /// When it was let go: nanoseconds since 1970, UTC.
    pub started_at: i64,
    /// When the monitor learned of its end: nanoseconds since 1970, UTC.
    pub finished_at: i64,
    /// What went wrong after the end (a cgroup that stays, a delete that failed).
    pub error: Option<String>,
}

/// Something that happened, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// 1, 2, 3 … over the life of the monitor.
    pub seq: u64,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// A container runs.
    Started {
        /// Container id.
        container: String,
        /// Process id of its init.
        pid: i32,
        /// Nanoseconds since 1970, UTC.
        started_at: i64,
    },
    /// A container ended; its record is complete.
    Exited(ExitRecord),
    /// The kernel killed a process of the container for want of memory; the container may go on.
    Oom {
        /// Container id.
        container: String,
    },
    /// The pause process ended although nobody asked it to: the pod's namespaces live only by its containers.
    PauseExited,
}

#[cfg(test)]
mod tests;
