//! `portforward.k8s.io`: each connection of the client is a data and an error stream of
//! one request id, and becomes a TCP connection made inside the pod's network.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_netlink::netns;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::copy;
use super::spdy::{Connection, Stream, value};
use crate::id::SandboxId;
use crate::sandbox::model::{Phase, SandboxRecord};
use crate::server::Server;
use crate::status::chain;

/// How long the connection inside the pod may take to come about.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Requests of which only one of the two streams has come.
const MOST_HALVES: usize = 256;

/// Why a port cannot be reached.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the pod is not running")]
    NotReady,
    #[error("cannot enter the pod's network")]
    Enter(#[source] netns::NetnsError),
    #[error("failed to connect to localhost:{port} inside the pod")]
    Connect {
        port: u16,
        #[source]
        source: io::Error,
    },
}

#[derive(Default)]
struct Halves {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Serves all connections of one client.
pub async fn serve(server: Arc<Server>, mut connection: Connection, sandbox: SandboxId) {
    let mut waiting: HashMap<String, Halves> = HashMap::new();
    while let Some(stream) = connection.accept().await {
        let header = |name| value(&stream.headers, name).map(str::to_owned);
        let port = header("port")
            .and_then(|port| port.parse::<u16>().ok())
            .filter(|port| *port > 0);
        let Some(port) = port else {
            let _ = stream.writer.reset().await;
            continue;
        };
        // Old clients send no id: their streams of one port belong together.
        let request = header("requestID").unwrap_or_else(|| port.to_string());
        if waiting.len() >= MOST_HALVES && !waiting.contains_key(&request) {
            let _ = stream.writer.reset().await;
            continue;
        }
        let halves = waiting.entry(request.clone()).or_default();
        match header("streamType").as_deref() {
            Some("data") => halves.data = Some(stream),
            Some("error") => halves.error = Some(stream),
            _ => drop(stream.writer.reset().await),
        }
        if halves.data.is_some()
            && halves.error.is_some()
            && let Some(Halves {
                data: Some(data),
                error: Some(error),
            }) = waiting.remove(&request)
        {
            let (server, sandbox, gone) = (server.clone(), sandbox.clone(), connection.gone());
            server.tasks.clone().spawn(async move {
                tokio::select! {
                    () = forward(&server, &sandbox, port, data, error) => {}
                    () = gone.cancelled() => {}
                    () = server.ending.cancelled() => {}
                }
            });
        }
    }
}

async fn forward(
    server: &Arc<Server>,
    sandbox: &SandboxId,
    port: u16,
    mut data: Stream,
    error: Stream,
) {
    match dial(server, sandbox, port).await {
        Ok(socket) => {
            let (from_pod, to_pod) = socket.into_split();
            let ended = CancellationToken::new();
            // Each direction ends by itself: half-closed connections are in use.
            tokio::join!(
                copy::to_client(from_pod, &data.writer, &ended),
                copy::from_client(&mut data.reader, to_pod),
            );
        }
        Err(failure) => {
            let _ = error.writer.send(Bytes::from(chain(&failure))).await;
            let _ = data.writer.reset().await;
        }
    }
    let _ = error.writer.finish().await;
}

async fn dial(server: &Server, sandbox: &SandboxId, port: u16) -> Result<TcpStream, DialError> {
    let record = server.sandboxes.get(sandbox).ok_or(DialError::NotReady)?;
    if record.phase != Phase::Ready {
        return Err(DialError::NotReady);
    }
    let netns = network_of(&record);
    let connecting = tokio::task::spawn_blocking(move || match netns {
        Some(netns) => {
            let netns = netns::open(&netns).map_err(DialError::Enter)?;
            netns::run_in(netns, || connect(port)).map_err(DialError::Enter)?
        }
        None => connect(port),
    });
    let socket = connecting.await.map_err(|_| DialError::NotReady)??;
    let failed = |source| DialError::Connect { port, source };
    socket.set_nonblocking(true).map_err(failed)?;
    TcpStream::from_std(socket).map_err(failed)
}

fn network_of(record: &SandboxRecord) -> Option<PathBuf> {
    (!record.host_network()).then(|| record.namespace_path("net"))
}

/// IPv4 first, as every server binds it; the first failure is what is told.
fn connect(port: u16) -> Result<std::net::TcpStream, DialError> {
    let to = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, CONNECT_WITHIN);
    let connected = to((Ipv4Addr::LOCALHOST, port).into())
        .or_else(|first| to((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| first));
    connected.map_err(|source| DialError::Connect { port, source })
}
