//! One attach session: the client's streams on the container's own.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_monitor::protocol::{Reply, Request};
use serde_json::json;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::copy;
use super::remote_command::{self, Channels, Sizes};
use super::sessions::Streams;
use super::spdy::{Connection, StreamReader, StreamWriter};
use crate::container::exec::{self, ExecError};
use crate::container::model::{ContainerRecord, State};
use crate::id::ContainerId;
use crate::monitor::MonitorError;
use crate::server::Server;
use crate::status::chain;

/// Serves one session on `connection`.
pub async fn serve(
    server: Arc<Server>,
    mut connection: Connection,
    container: ContainerId,
    streams: Streams,
) {
    let Some(channels) = remote_command::accept(&mut connection, streams).await else {
        return;
    };
    let error = channels.error.clone();
    let gone = connection.gone();
    let status = tokio::select! {
        outcome = run(&server, &container, channels) => match outcome {
            Ok(()) => json!({ "metadata": {}, "status": "Success" }),
            Err(failure) => remote_command::failure(&chain(&failure)),
        },
        // The container goes on without its client.
        () = gone.cancelled() => return,
    };
    remote_command::send_status(&error, &status).await;
    drop(error);
    connection.close().await;
}

async fn run(
    server: &Arc<Server>,
    container: &ContainerId,
    channels: Channels,
) -> Result<(), ExecError> {
    let record = server
        .containers
        .get(container)
        .ok_or(ExecError::NotRunning)?;
    if !matches!(record.state, State::Running { .. }) {
        return Err(ExecError::NotRunning);
    }
    let Channels {
        mut stdin,
        stdout,
        stderr,
        resize,
        ..
    } = channels;
    let Pipes {
        input,
        outputs: [out, err],
        ends,
    } = Pipes::new(&stdin, &stdout, &stderr)?;
    let request = Request::Attach {
        container: record.id.to_string(),
        stdin: stdin.is_some(),
        stdout: stdout.is_some(),
        stderr: stderr.is_some(),
    };
    let monitor = server.monitor(&record.sandbox);
    let (mut conversation, reply, _) = monitor.converse(request, ends).await?;
    if !matches!(reply, Reply::Attached) {
        return Err(MonitorError::Unexpected.into());
    }
    let typing = async {
        if let (Some(reader), Some(sender)) = (&mut stdin, input) {
            copy::from_client(reader, sender).await;
        }
        std::future::pending::<()>().await;
    };
    let showing = async {
        let show = async |from, to| {
            if let (Some(from), Some(to)) = (from, to) {
                copy::to_client(from, to, &CancellationToken::new()).await;
            }
        };
        tokio::join!(show(out, stdout.as_ref()), show(err, stderr.as_ref()));
        // Our ends of the pipes are closed by the monitor with the last output.
        while let Ok(reply) = conversation.next().await {
            if matches!(reply, Reply::AttachEnded) {
                break;
            }
        }
    };
    tokio::select! {
        () = showing => {}
        () = typing => {}
        () = follow_sizes(server, &record, resize) => {}
    }
    Ok(())
}

/// Our ends of the pipes to the monitor, and its ends in the order it wants them.
struct Pipes {
    input: Option<pipe::Sender>,
    outputs: [Option<pipe::Receiver>; 2],
    ends: Vec<OwnedFd>,
}

impl Pipes {
    fn new(
        stdin: &Option<StreamReader>,
        stdout: &Option<StreamWriter>,
        stderr: &Option<StreamWriter>,
    ) -> Result<Pipes, ExecError> {
        let (mut input, mut outputs, mut ends) = (None, [None, None], Vec::new());
        if stdin.is_some() {
            let (sender, end) = exec::pipe_from_us()?;
            input = Some(sender);
            ends.push(end);
        }
        for (output, wanted) in outputs.iter_mut().zip([stdout.is_some(), stderr.is_some()]) {
            if wanted {
                let (receiver, end) = exec::pipe_to_us()?;
                *output = Some(receiver);
                ends.push(end);
            }
        }
        Ok(Pipes {
            input,
            outputs,
            ends,
        })
    }
}

async fn follow_sizes(server: &Server, record: &ContainerRecord, sizes: Option<Sizes>) {
    if let Some(mut sizes) = sizes {
        while let Some((rows, cols)) = sizes.next().await {
            let container = record.id.to_string();
            let resize = Request::Resize {
                container,
                exec_id: None,
                rows,
                cols,
            };
            // A container that has just ended has no size.
            let _ = server.monitor(&record.sandbox).call(resize).await;
        }
    }
    std::future::pending().await
}
