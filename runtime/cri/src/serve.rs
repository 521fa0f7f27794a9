//! The life of the server: open, recover, serve, drain.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use berth_proto::cri::image_service_server::ImageServiceServer;
use berth_proto::cri::runtime_service_server::RuntimeServiceServer;
use futures::stream::{self, StreamExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;

use crate::audit;
use crate::config::Config;
use crate::rpc::{ImageRpcs, RuntimeRpcs};
use crate::sandbox::{recover, remove, stop};
use crate::server::{ServeError, Server};
use crate::streaming::{self, Sessions};

/// Largest message received, in bytes; kubelets send up to 16 MiB.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// Pods that are removed at the same time: enough that waiting for processes, namespaces and
/// address leases of one overlaps with others.
const REMOVED_AT_ONCE: usize = 16;

/// Serves the CRI on the socket of `config` until `shutdown`. Pods outlive it; the next
/// call adopts them.
///
/// # Errors
/// What keeps it from starting, or the transport's failure.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let address = config.streaming_address;
    let listen = |source| ServeError::Listen {
        address: address.to_string(),
        source,
    };
    let streams = TcpListener::bind(address).await.map_err(listen)?;
    let socket = config.socket.clone();
    let server = Server::open(config, Sessions::new(streams.local_addr().map_err(listen)?))?;
    let listener = bind(&socket).await?;
    recover::recover(&server).await?;
    server
        .tasks
        .spawn(streaming::serve(server.clone(), streams));
    server.tasks.spawn(audit::publish(server.clone()));
    tracing::info!(socket = %socket.display(), "serving the CRI");

    let runtime = RuntimeServiceServer::new(RuntimeRpcs(server.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let images = ImageServiceServer::new(ImageRpcs(server.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let ending = server.ending.clone();
    let until = async move {
        shutdown.await;
        // Event streams never end by themselves.
        ending.cancel();
    };
    let served = tonic::transport::Server::builder()
        .add_service(runtime)
        .add_service(images)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), until)
        .await;
    // Before the drain: a client must not connect to a server that is gone.
    let _ = std::fs::remove_file(&socket);
    server.drain().await;
    Ok(served?)
}

/// Removes every pod that a server with `config` made, with every effect on the host: a
/// default network that the server wrote goes too.
/// No server may be running.
///
/// # Errors
/// The first sandbox that cannot be removed; the others are tried all the same.
pub async fn stop_all(config: Config) -> Result<(), ServeError> {
    let server = Server::open(config, Sessions::new(([127, 0, 0, 1], 0).into()))?;
    recover::recover(&server).await?;
    let removals = server.sandboxes.list().into_iter().map(async |record| {
        let removed = remove::remove(&server, &record.id).await;
        removed.map_err(|source| ServeError::Remove {
            sandbox: record.id.clone(),
            source,
        })
    });
    let removals = stream::iter(removals).buffer_unordered(REMOVED_AT_ONCE);
    let outcome = removals
        .fold(Ok(()), async |outcome, removed| outcome.and(removed))
        .await;
    let root = server
        .cgroups
        .mount
        .join(server.config.cgroup_root.trim_start_matches('/'));
    // Empty by now; one that others use as well stays.
    if let Err(error) = stop::remove_empty(&root) {
        tracing::debug!(error = %crate::status::chain(&error), "the cgroup root stays");
    }
    if outcome.is_ok()
        && let Err(error) = server.network.remove_default()
    {
        tracing::warn!(%error, "the default network's configuration stays");
    }
    server.drain().await;
    outcome
}

/// Binds the socket for root alone. One that a dead server left is replaced; one that
/// answers is another server's.
async fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Listen {
        address: path.display().to_string(),
        source,
    };
    let leftover = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if leftover {
        if UnixStream::connect(path).await.is_ok() {
            return Err(failed(std::io::ErrorKind::AddrInUse.into()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(failed)?;
    Ok(listener)
}
