//! One exec session: the client's streams on the process's.

use std::sync::Arc;

use berth_monitor::protocol::Request;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::copy::{self, Terminal};
use super::remote_command::{self, Channels, Sizes};
use super::sessions::Streams;
use super::spdy::{Connection, StreamReader, StreamWriter};
use crate::container::exec::{self, Command, ExecError, Executing};
use crate::container::model::ContainerRecord;
use crate::id::ContainerId;
use crate::server::Server;
use crate::status::chain;

/// The character that ends a terminal's input at the start of a line (termios(3), VEOF).
const END_OF_INPUT: u8 = 4;

/// Serves one session on `connection`.
pub async fn serve(
    server: Arc<Server>,
    mut connection: Connection,
    container: ContainerId,
    command: Command,
    streams: Streams,
) {
    let Some(channels) = remote_command::accept(&mut connection, streams).await else {
        return;
    };
    let error = channels.error.clone();
    let session = Exec {
        server,
        container,
        command,
        gone: connection.gone(),
        ended: CancellationToken::new(),
    };
    let status = match session.run(channels, streams).await {
        Ok(code) => remote_command::exit_status(code),
        Err(failure) => failed(&failure),
    };
    remote_command::send_status(&error, &status).await;
    drop(error);
    connection.close().await;
}

fn failed(error: &ExecError) -> Value {
    remote_command::failure(&chain(error))
}

struct Exec {
    server: Arc<Server>,
    container: ContainerId,
    command: Command,
    /// The client is gone.
    gone: CancellationToken,
    /// The process has ended.
    ended: CancellationToken,
}

impl Exec {
    async fn run(&self, channels: Channels, streams: Streams) -> Result<i32, ExecError> {
        let record = self
            .server
            .containers
            .get(&self.container)
            .ok_or(ExecError::NotRunning)?;
        if streams.tty {
            self.run_on_terminal(&record, channels).await
        } else {
            self.run_on_pipes(&record, channels).await
        }
    }

    async fn run_on_pipes(
        &self,
        record: &ContainerRecord,
        mut channels: Channels,
    ) -> Result<i32, ExecError> {
        let (stdin, stdin_end) = exec::pipe_from_us()?;
        let (stdout, stdout_end) = exec::pipe_to_us()?;
        let (stderr, stderr_end) = exec::pipe_to_us()?;
        let fds = vec![stdin_end, stdout_end, stderr_end];
        let mut executing = exec::start(&self.server, record, &self.command, false, fds).await?;
        let input = async {
            match &mut channels.stdin {
                Some(reader) => copy::from_client(reader, stdin).await,
                None => drop(stdin),
            }
            std::future::pending::<()>().await;
        };
        let output = async {
            let out = async {
                if let Some(writer) = &channels.stdout {
                    copy::to_client(stdout, writer, &self.ended).await;
                }
            };
            let err = async {
                if let Some(writer) = &channels.stderr {
                    copy::to_client(stderr, writer, &self.ended).await;
                }
            };
            tokio::join!(out, err);
        };
        self.wait(&mut executing, input, output).await
    }

    async fn run_on_terminal(
        &self,
        record: &ContainerRecord,
        channels: Channels,
    ) -> Result<i32, ExecError> {
        let mut executing =
            exec::start(&self.server, record, &self.command, true, Vec::new()).await?;
        let master = executing
            .terminal
            .take()
            .ok_or(crate::monitor::MonitorError::Unexpected)?;
        let terminal = Terminal::new(master).map_err(ExecError::Pipe)?;
        let (
            exec_id,
            Channels {
                stdin,
                stdout,
                resize,
                ..
            },
        ) = (executing.exec_id, channels);
        let input = async {
            tokio::join!(
                type_into(&terminal, stdin),
                self.follow_sizes(record, exec_id, resize),
            );
            std::future::pending::<()>().await;
        };
        let output = show(&terminal, stdout.as_ref(), &self.ended);
        self.wait(&mut executing, input, output).await
    }

    /// Waits for the process and then for the rest of its output. A client that goes away
    /// takes the process with it: `executing` is dropped by the caller.
    async fn wait(
        &self,
        executing: &mut Executing,
        input: impl Future<Output = ()>,
        output: impl Future<Output = ()>,
    ) -> Result<i32, ExecError> {
        let (mut input, mut output) = (std::pin::pin!(input), std::pin::pin!(output));
        let mut drained = false;
        let code = loop {
            // `exited` is cancel-safe; the copies are never dropped before the end.
            tokio::select! {
                code = executing.exited() => break code?,
                () = &mut output, if !drained => drained = true,
                () = &mut input => {}
                () = self.gone.cancelled() => return Err(ExecError::NotRunning),
            }
        };
        self.ended.cancel();
        if !drained {
            tokio::select! {
                () = output => {}
                () = self.gone.cancelled() => {}
            }
        }
        Ok(code)
    }

    async fn follow_sizes(&self, record: &ContainerRecord, exec_id: u64, sizes: Option<Sizes>) {
        let Some(mut sizes) = sizes else { return };
        while let Some((rows, cols)) = sizes.next().await {
            let container = record.id.to_string();
            let resize = Request::Resize {
                container,
                exec_id: Some(exec_id),
                rows,
                cols,
            };
            // A process that has just ended has no size.
            let _ = self.server.monitor(&record.sandbox).call(resize).await;
        }
    }
}

async fn type_into(terminal: &Terminal, stdin: Option<StreamReader>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = stdin.data().await {
        if terminal.write(&bytes).await.is_err() {
            return;
        }
    }
    let _ = terminal.write(&[END_OF_INPUT]).await;
}

async fn show(terminal: &Terminal, stdout: Option<&StreamWriter>, ended: &CancellationToken) {
    loop {
        let bytes = terminal.read(ended).await;
        if bytes.is_empty() {
            break;
        }
        if let Some(stdout) = stdout
            && stdout.send(bytes).await.is_err()
        {
            return;
        }
    }
    if let Some(stdout) = stdout {
        let _ = stdout.finish().await;
    }
}
