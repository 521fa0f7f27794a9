//! The RPCs of the CRI, one a file: decode, call, encode, nothing else. The two services
//! below only name them.

mod attach;
mod caller;
mod container_stats;
mod container_status;
mod create_container;
mod exec;
mod exec_sync;
mod filter;
mod get_container_events;
mod image_fs_info;
mod image_service;
mod image_status;
mod list_containers;
mod list_images;
mod list_pod_sandbox;
mod pod_sandbox_stats;
mod pod_sandbox_status;
mod port_forward;
mod pull_image;
mod remove_container;
mod remove_image;
mod remove_pod_sandbox;
mod reopen_container_log;
mod run_pod_sandbox;
mod runtime_config;
mod runtime_service;
mod start_container;
mod status;
mod stop_container;
mod stop_pod_sandbox;
mod update_container_resources;
mod update_runtime_config;
mod version;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::Status;

use crate::container::exec::ExecError;
use crate::container::model::ContainerRecord;
use crate::server::Server;
use crate::streaming::Streams;

/// The RuntimeService of a server.
pub struct RuntimeRpcs(pub Arc<Server>);

/// The ImageService of a server.
pub struct ImageRpcs(pub Arc<Server>);

/// The answer of an RPC that streams and is not there.
type NoStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a call that lasts as long as its client likes comes to, unless the server ends first.
async fn until_ending<T>(server: &Server, call: impl Future<Output = T>) -> Result<T, Status> {
    tokio::select! {
        outcome = call => Ok(outcome),
        () = server.ending.cancelled() => Err(Status::unavailable("the server is shutting down")),
    }
}

/// The running container of an exec or attach request.
fn running(server: &Server, id: &str) -> Result<Arc<ContainerRecord>, Status> {
    let record = server.containers.find(id).map_err(crate::status::from)?;
    if record.pid().is_none() {
        return Err(crate::status::from(ExecError::NotRunning));
    }
    Ok(record)
}

/// Checks the streams of an exec or attach request as the CRI wants them.
fn streams(asked: Streams) -> Result<Streams, Status> {
    if asked.tty && asked.stderr {
        return Err(crate::status::invalid("stderr", "cannot be had with tty"));
    }
    if !asked.stdin && !asked.stdout && !asked.stderr {
        return Err(crate::status::invalid(
            "stdin, stdout, stderr",
            "one of them is required",
        ));
    }
    Ok(asked)
}
