//! A pod's monitor, as the server calls it: the blocking client on blocking threads,
//! long conversations behind the reactor.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use berth_monitor::client::{CallError, Connection};
use berth_monitor::protocol::{Reply, Request, SOCKET_NAME};
use serde_json::value::RawValue;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio_util::task::TaskTracker;

/// Most bytes read of what a failing monitor says.
const MAX_LAST_WORDS: u64 = 64 * 1024;
/// How long a new monitor may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How long a monitor may take for an ordinary request.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take where giving up means that its pod is lost: it may be busy with a start.
const SHOWS_ITSELF_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to start something, which another runtime and its hooks may do for it
/// (CRI-O's `container_create_timeout`).
const STARTS_WITHIN: Duration = Duration::from_secs(240);

fn patience(request: &Request) -> Duration {
    match request {
        Request::StartPod(_) | Request::Launch(_) | Request::Exec(_) => STARTS_WITHIN,
        Request::State | Request::Subscribe { .. } => SHOWS_ITSELF_WITHIN,
        _ => ANSWERS_WITHIN,
    }
}

/// Why the monitor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The call failed.
    #[error("the pod's monitor refused or is gone")]
    Call(#[source] CallError),
    /// The reply answers something else.
    #[error("the pod's monitor answered out of order")]
    Unexpected,
    /// The program does not start.
    #[error("cannot start the monitor `{program}`")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The program started and does not listen.
    #[error("the monitor did not listen within {}s", READY_WITHIN.as_secs())]
    NotReady,
    /// The program ended with these words.
    #[error("the monitor ended at its start: {0}")]
    Refused(String),
    /// The connection cannot be watched.
    #[error("cannot watch the connection to the monitor")]
    Watch(#[source] std::io::Error),
    /// The task that waited was ended with the server.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl MonitorError {
    /// The sandbox record of a start that the monitor refused for what it says.
    pub fn sandbox_record(&self) -> Option<Box<RawValue>> {
        match self {
            MonitorError::Call(CallError::Refused { record, .. }) => record.clone(),
            _ => None,
        }
    }

    /// Whether there is no monitor any more.
    pub fn is_gone(&self) -> bool {
        match self {
            MonitorError::Call(error) => error.is_disconnected(),
            _ => false,
        }
    }
}

/// The monitor of one pod; a clone is another handle. Every call has its own connection.
#[derive(Debug, Clone)]
pub struct Monitor {
    socket: PathBuf,
}

impl Monitor {
    /// The monitor whose directory is `dir`.
    pub fn at(dir: &Path) -> Self {
        Monitor {
            socket: dir.join(SOCKET_NAME),
        }
    }

    /// Asks and waits for the one reply.
    pub async fn call(&self, request: Request) -> Result<Reply, MonitorError> {
        let socket = self.socket.clone();
        blocking(move || {
            let mut connection = Connection::connect_within(&socket, patience(&request))?;
            let (reply, _) = connection.call(&request, &[])?;
            Ok(reply)
        })
        .await
    }

    /// Asks, handing `fds` over, and keeps the connection for what follows the reply.
    pub async fn converse(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Conversation, Reply, Vec<OwnedFd>), MonitorError> {
        let socket = self.socket.clone();
        let (connection, reply, received) = blocking(move || {
            let mut connection = Connection::connect_within(&socket, patience(&request))?;
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let (reply, received) = connection.call(&request, &borrowed)?;
            Ok((connection, reply, received))
        })
        .await?;
        Ok((Conversation::new(connection)?, reply, received))
    }
}

/// The program that monitors are started from: the file that was at `path` when the server
/// started, out of reach of containers that see a monitor. An upgrade that replaces it is taken
/// up by the next server.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: OwnedFd,
}

impl Program {
    /// Opens the program at `path`.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Program {
            path: path.to_owned(),
            file: berth_sys::program::out_of_reach(File::open(path)?)?,
        })
    }

    /// What execve(2) takes in a child of this process for the open file.
    fn descriptor(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Starts the program of a monitor for `dir`, in the cgroup `leaf`, and waits until it
/// listens. It outlives this process: it leaves our session and streams, and letting go
/// of its standard error is how it says that it is ready.
pub async fn spawn(
    program: &Program,
    dir: &Path,
    leaf: &Path,
    tasks: &TaskTracker,
) -> Result<Monitor, MonitorError> {
    let failed = |source| MonitorError::Spawn {
        program: program.path.clone(),
        source,
    };
    let mut child = tokio::process::Command::new(program.descriptor())
        .arg0("berth-monitor")
        // Detached it is cloned into its cgroup; moved there it would cost 13 ms.
        .arg("--detach")
        .arg("--dir")
        .arg(dir)
        .arg("--cgroup")
        .arg(leaf)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(false)
        .spawn()
        .map_err(failed)?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = stderr.take(MAX_LAST_WORDS);
        let read = stderr.read_to_string(&mut said);
        let read = tokio::time::timeout(READY_WITHIN, read).await;
        read.map_err(|_| MonitorError::NotReady)?.map_err(failed)?;
    }
    if !said.trim().is_empty() {
        return Err(MonitorError::Refused(said.trim().to_owned()));
    }
    // Waited for only so that it leaves no zombie; its end is seen on its connections.
    tasks.spawn(async move { child.wait().await });
    Ok(Monitor::at(dir))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> Result<T, MonitorError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| MonitorError::ShuttingDown)?
        .map_err(MonitorError::Call)
}

/// A connection on which more replies follow. Closing it ends an exec session.
pub struct Conversation {
    connection: AsyncFd<Watched>,
}

/// Lets the reactor see the connection's descriptor.
struct Watched(Connection);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Conversation {
    #[expect(
        deprecated,
        reason = "the successor is unsafe, for which there is no need: the connection owns its descriptor"
    )]
    fn new(connection: Connection) -> Result<Self, MonitorError> {
        connection
            .set_nonblocking(true)
            .map_err(MonitorError::Watch)?;
        let connection = AsyncFd::with_interest(Watched(connection), Interest::READABLE)
            .map_err(MonitorError::Watch)?;
        Ok(Conversation { connection })
    }

    /// The next reply. Cancel-safe: a reply that is not returned is not taken.
    pub async fn next(&mut self) -> Result<Reply, MonitorError> {
        loop {
            let mut ready = self
                .connection
                .readable_mut()
                .await
                .map_err(MonitorError::Watch)?;
            match ready.get_inner_mut().0.next_reply() {
                Ok((reply, _)) => return Ok(reply),
                Err(CallError::Receive(error))
                    if error.kind() == std::io::ErrorKind::WouldBlock =>
                {
                    ready.clear_ready();
                }
                Err(error) => return Err(MonitorError::Call(error)),
            }
        }
    }
}
