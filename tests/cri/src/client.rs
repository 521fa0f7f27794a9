//! A CRI client over a unix socket, with the calls that tests and tours make.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_proto::cri;
use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Largest message accepted, in bytes.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    /// Every call of the RuntimeService.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Every call of the ImageService.
    pub images: ImageServiceClient<Channel>,
}

impl Client {
    /// Connects to `socket`.
    ///
    /// # Errors
    /// Nothing listens there.
    pub async fn connect(socket: &Path) -> Result<Client> {
        let path: PathBuf = socket.to_owned();
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is never resolved: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://cri");
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(Client {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    /// Connects to `socket`, waiting until a server that is starting answers.
    ///
    /// # Errors
    /// None answers within `within`.
    pub async fn await_ready(socket: &Path, within: Duration) -> Result<Client> {
        let start = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(socket).await
                && client
                    .runtime
                    .version(cri::VersionRequest::default())
                    .await
                    .is_ok()
            {
                return Ok(client);
            }
            if start.elapsed() > within {
                bail!("no server answers on {}", socket.display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Pulls `name` anonymously; the reference to create containers with.
    ///
    /// # Errors
    /// The server's status.
    pub async fn pull(&mut self, name: &str) -> Result<String> {
        let request = cri::PullImageRequest {
            image: Some(image(name)),
            ..Default::default()
        };
        Ok(self
            .images
            .pull_image(request)
            .await?
            .into_inner()
            .image_ref)
    }

    /// Runs a sandbox.
    ///
    /// # Errors
    /// The server's status.
    pub async fn run_pod(&mut self, config: &cri::PodSandboxConfig) -> Result<String> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        Ok(self
            .runtime
            .run_pod_sandbox(request)
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    /// Creates a container.
    ///
    /// # Errors
    /// The server's status.
    pub async fn create(
        &mut self,
        pod: &str,
        config: &cri::ContainerConfig,
        pod_config: &cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        Ok(self
            .runtime
            .create_container(request)
            .await?
            .into_inner()
            .container_id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The server's status.
    pub async fn start(&mut self, container: &str) -> Result<()> {
        let container_id = container.to_owned();
        self.runtime
            .start_container(cri::StartContainerRequest { container_id })
            .await?;
        Ok(())
    }

    /// Creates and starts a container.
    ///
    /// # Errors
    /// The server's status.
    pub async fn run(
        &mut self,
        pod: &str,
        config: &cri::ContainerConfig,
        pod_config: &cri::PodSandboxConfig,
    ) -> Result<String> {
        let id = self.create(pod, config, pod_config).await?;
        self.start(&id).await?;
        Ok(id)
    }

    /// The status of a container.
    ///
    /// # Errors
    /// The server's status.
    pub async fn status(&mut self, container: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: false,
        };
        let response = self.runtime.container_status(request).await?.into_inner();
        response.status.context("a status response without status")
    }

    /// The status of a sandbox.
    ///
    /// # Errors
    /// The server's status.
    pub async fn pod_status(&mut self, pod: &str) -> Result<cri::PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: pod.to_owned(),
            verbose: false,
        };
        let response = self.runtime.pod_sandbox_status(request).await?.into_inner();
        response.status.context("a status response without status")
    }

    /// Waits until a container has ended.
    ///
    /// # Errors
    /// It does not within `within`.
    pub async fn await_exit(
        &mut self,
        container: &str,
        within: Duration,
    ) -> Result<cri::ContainerStatus> {
        let start = Instant::now();
        loop {
            let status = self.status(container).await?;
            if status.state() == cri::ContainerState::ContainerExited {
                return Ok(status);
            }
            if start.elapsed() > within {
                bail!("the container still is {:?}", status.state());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Executes a command to its end; `timeout` in seconds, 0 for none.
    ///
    /// # Errors
    /// The server's status.
    pub async fn exec(
        &mut self,
        container: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<cri::ExecSyncResponse, tonic::Status> {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout,
        };
        Ok(self.runtime.exec_sync(request).await?.into_inner())
    }

    /// Stops a container with `grace` seconds.
    ///
    /// # Errors
    /// The server's status.
    pub async fn stop(&mut self, container: &str, grace: i64) -> Result<()> {
        let request = cri::StopContainerRequest {
            container_id: container.to_owned(),
            timeout: grace,
        };
        self.runtime.stop_container(request).await?;
        Ok(())
    }

    /// Removes a container.
    ///
    /// # Errors
    /// The server's status.
    pub async fn remove(&mut self, container: &str) -> Result<()> {
        let container_id = container.to_owned();
        self.runtime
            .remove_container(cri::RemoveContainerRequest { container_id })
            .await?;
        Ok(())
    }

    /// Stops a sandbox.
    ///
    /// # Errors
    /// The server's status.
    pub async fn stop_pod(&mut self, pod: &str) -> Result<()> {
        let pod_sandbox_id = pod.to_owned();
        self.runtime
            .stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
            .await?;
        Ok(())
    }

    /// Removes a sandbox.
    ///
    /// # Errors
    /// The server's status.
    pub async fn remove_pod(&mut self, pod: &str) -> Result<()> {
        let pod_sandbox_id = pod.to_owned();
        self.runtime
            .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id })
            .await?;
        Ok(())
    }
}

/// The request form of an image name.
pub fn image(name: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: name.to_owned(),
        ..Default::default()
    }
}

/// A pod of the namespace `default` with its logs below `logs`.
pub fn pod(name: &str, logs: &Path) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: logs.join(name).display().to_string(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        ..Default::default()
    }
}

/// A container that runs `command`, logging to `<name>.log`.
pub fn container(name: &str, image_ref: &str, command: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(image(image_ref)),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig::default()),
        ..Default::default()
    }
}
