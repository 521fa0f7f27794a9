//! Our own CRI client: blocking calls on the server's unix socket.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_proto::cri::image_service_client::ImageServiceClient;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// No single call of the tour takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// Both services of one server.
pub struct CriClient {
    runtime: Runtime,
    /// Sandboxes and containers.
    pub pods: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
    /// The sandbox of the steps, once it runs.
    pub sandbox: String,
    /// Its container.
    pub container: String,
}

impl CriClient {
    /// Connects to the socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()))?.timeout(LIMIT);
        let channel = runtime
            .block_on(endpoint.connect())
            .context("cannot connect")?;
        Ok(Self {
            pods: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            sandbox: String::new(),
            container: String::new(),
            runtime,
        })
    }

    /// Waits for a call's answer.
    pub fn wait<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.runtime.block_on(call).map(tonic::Response::into_inner)
    }
}
