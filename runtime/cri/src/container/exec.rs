//! One more process in a running container: by ExecSync, or behind a stream.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_monitor::protocol::{ExecSession, Reply, Request};
use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::audit::{self, AuditError};
use crate::container::create::CONFIG_NAME;
use crate::container::model::{ContainerRecord, State};
use crate::monitor::{Conversation, MonitorError};
use crate::record::{self, RecordError};
use crate::server::Server;

/// Most output ExecSync returns of each stream, in bytes: what fits a CRI message.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;
/// How long output may still come after the process has ended: a child of it may hold
/// the pipe for ever.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);

/// Why a process was not executed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No command.
    #[error("cmd: is required")]
    NoCommand,
    /// It does not run.
    #[error("the container is not running")]
    NotRunning,
    /// The configuration of the container cannot be read.
    #[error("cannot read the configuration of the container")]
    Record(#[from] RecordError),
    /// No pipe.
    #[error("cannot make a pipe")]
    Pipe(#[source] std::io::Error),
    /// The monitor or the sandbox path refused.
    #[error("cannot execute in the container")]
    Monitor(#[from] MonitorError),
    /// It cannot be recorded; the process was killed, or never was.
    #[error("cannot record the execution")]
    Audit(#[from] AuditError),
    /// The time allowed is over; the process and its children were killed.
    #[error("the command timed out after {0}s and was killed")]
    TimedOut(u64),
    /// The output is longer than a message can be; the process was killed.
    #[error("the command wrote more than 16 MiB and was killed")]
    TooMuchOutput,
}

/// A process that runs. Dropping it kills it.
pub struct Executing {
    conversation: Conversation,
    /// Names it in a resize.
    pub exec_id: u64,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Its entry is being put in the audit log; None when it is there.
    recording: Option<JoinHandle<Result<Option<String>, AuditError>>>,
}

/// How a process ended: 0–255, or 128 + signal.
pub type ExitCode = i32;

impl Executing {
    /// Waits for its end, which nobody learns before its entry is in the audit log. Cancel-safe.
    pub async fn exited(&mut self) -> Result<ExitCode, ExecError> {
        if let Some(recording) = &mut self.recording {
            let appended = recording.await;
            self.recording = None;
            // Where it is refused, dropping the conversation is what kills the process.
            appended.map_err(|_| AuditError::ShuttingDown)??;
        }
        loop {
            if let Reply::ExecExited { code, .. } = self.conversation.next().await? {
                return Ok(code);
            }
        }
    }
}

/// What is to be executed, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Who asked, as the audit log tells it.
    pub who: String,
}

/// Executes `command`; `fds` are its standard streams when it has no terminal.
pub async fn start(
    server: &Arc<Server>,
    record: &ContainerRecord,
    command: &Command,
    tty: bool,
    fds: Vec<OwnedFd>,
) -> Result<Executing, ExecError> {
    let Command { args, who } = command;
    if args.is_empty() {
        return Err(ExecError::NoCommand);
    }
    if !matches!(record.state, State::Running { .. }) {
        return Err(ExecError::NotRunning);
    }
    let session = ExecSession {
        container: record.id.to_string(),
        process: process(server, record, args, tty)?,
        tty,
    };
    server.audit.ready().await?;
    let monitor = server.monitor(&record.sandbox);
    let request = Request::Exec(Box::new(session));
    let (conversation, reply, received) = match monitor.converse(request, fds).await {
        Ok(conversing) => conversing,
        Err(error) => {
            // Refused for what the kernel made of it: that too is told.
            if let Some(seen) = error.sandbox_record() {
                let event = audit::exec(server, record, who, args, Some(seen));
                server.audit.append(event).await?;
            }
            return Err(error.into());
        }
    };
    let Reply::ExecStarted {
        exec_id,
        record: seen,
        ..
    } = reply
    else {
        return Err(MonitorError::Unexpected.into());
    };
    let event = audit::exec(server, record, who, args, seen);
    // Meanwhile its streams are served: a terminal wants its size before the process asks.
    let audit = server.audit.clone();
    let recording = server.tasks.spawn(async move { audit.append(event).await });
    Ok(Executing {
        recording: Some(recording),
        conversation,
        exec_id,
        terminal: received.into_iter().next(),
    })
}

/// As the container's own process, but for the command and the terminal.
fn process(
    server: &Server,
    record: &ContainerRecord,
    command: &[String],
    tty: bool,
) -> Result<Value, RecordError> {
    let path = server.containers.dir(&record.id).join(CONFIG_NAME);
    let mut config: Value = record::read(&path)?.unwrap_or_default();
    let mut process = config["process"].take();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if let (true, Some(env)) = (tty, process["env"].as_array_mut()) {
        let named = |entry: &Value| entry.as_str().is_some_and(|text| text.starts_with("TERM="));
        if !env.iter().any(named) {
            env.push(json!("TERM=xterm"));
        }
    }
    Ok(process)
}

/// What ExecSync answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// See [`ExitCode`].
    pub code: ExitCode,
}

/// Executes `command` and collects what it writes. With a `timeout` it is killed then,
/// and with it everything it started.
pub async fn sync(
    server: &Arc<Server>,
    record: &ContainerRecord,
    command: &Command,
    timeout: Option<Duration>,
) -> Result<Output, ExecError> {
    let (stdout, stdout_end) = pipe_to_us()?;
    let (stderr, stderr_end) = pipe_to_us()?;
    let null = std::fs::File::open("/dev/null").map_err(ExecError::Pipe)?;
    let fds = vec![null.into(), stdout_end, stderr_end];
    let mut executing = start(server, record, command, false, fds).await?;
    let collected = collect(&mut executing, stdout, stderr);
    match timeout {
        // Dropping the conversation is what kills the process.
        Some(timeout) => tokio::time::timeout(timeout, collected)
            .await
            .unwrap_or(Err(ExecError::TimedOut(timeout.as_secs()))),
        None => collected.await,
    }
}

async fn collect(
    executing: &mut Executing,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
) -> Result<Output, ExecError> {
    let (mut out, mut err) = (Collector::new(stdout), Collector::new(stderr));
    let code = {
        let mut exited = std::pin::pin!(executing.exited());
        loop {
            // `step` and `exited` are cancel-safe: bytes read are in the buffer already.
            tokio::select! {
                code = &mut exited => break code?,
                read = out.step(), if out.open => read?,
                read = err.step(), if err.open => read?,
            }
        }
    };
    let rest = async {
        while out.open || err.open {
            tokio::select! {
                read = out.step(), if out.open => read?,
                read = err.step(), if err.open => read?,
            }
        }
        Ok::<(), ExecError>(())
    };
    if let Ok(drained) = tokio::time::timeout(DRAIN_WITHIN, rest).await {
        drained?;
    }
    Ok(Output {
        stdout: out.bytes.to_vec(),
        stderr: err.bytes.to_vec(),
        code,
    })
}

struct Collector {
    pipe: pipe::Receiver,
    bytes: BytesMut,
    open: bool,
}

impl Collector {
    fn new(pipe: pipe::Receiver) -> Self {
        Collector {
            pipe,
            bytes: BytesMut::new(),
            open: true,
        }
    }

    async fn step(&mut self) -> Result<(), ExecError> {
        // A pipe that cannot be read has nothing more to say.
        let read = self.pipe.read_buf(&mut self.bytes).await.unwrap_or(0);
        self.open = read > 0;
        if self.bytes.len() > OUTPUT_LIMIT {
            return Err(ExecError::TooMuchOutput);
        }
        Ok(())
    }
}

/// A pipe that we read; the other end is for the process and blocks.
pub fn pipe_to_us() -> Result<(pipe::Receiver, OwnedFd), ExecError> {
    let (read, write) = new_pipe()?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|errno| ExecError::Pipe(errno.into()))?;
    let receiver = pipe::Receiver::from_owned_fd(read).map_err(ExecError::Pipe)?;
    Ok((receiver, write))
}

/// A pipe that we write; the other end is for the process and blocks.
pub fn pipe_from_us() -> Result<(pipe::Sender, OwnedFd), ExecError> {
    let (read, write) = new_pipe()?;
    rustix::io::ioctl_fionbio(&write, true).map_err(|errno| ExecError::Pipe(errno.into()))?;
    let sender = pipe::Sender::from_owned_fd(write).map_err(ExecError::Pipe)?;
    Ok((sender, read))
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), ExecError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| ExecError::Pipe(errno.into()))
}
