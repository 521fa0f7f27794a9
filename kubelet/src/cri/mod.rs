//! The kubelet's client of the CRI server: gRPC over a unix socket, nothing else.
//!
//! Invariant: this is the only way the kubelet reaches containers and images.

mod image;

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use berth_proto::cri::image_service_client::ImageServiceClient;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use berth_proto::cri::{self as v1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// The largest message taken from a CRI server (16 MiB, the kubelet's limit).
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Request header by which a resumable event stream is asked for.
const RESUME_AFTER: &str = "berth-resume-after";

/// A cheap handle on both CRI services.
#[derive(Clone, Debug)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
    timeout: Duration,
}

/// Why a CRI call failed.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The server answered with an error; `message` is its own text.
    #[error("{rpc}: {message}")]
    Refused {
        rpc: &'static str,
        code: tonic::Code,
        message: String,
    },
    /// No answer in time.
    #[error("{rpc}: no answer within {limit:?}")]
    Timeout { rpc: &'static str, limit: Duration },
    /// The answer lacks a field that the protocol promises.
    #[error("{rpc}: the answer has no `{field}`")]
    Incomplete {
        rpc: &'static str,
        field: &'static str,
    },
}

impl CriError {
    /// The object asked for does not exist (any more).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, CriError::Refused { code, .. } if *code == tonic::Code::NotFound)
    }

    /// The server does not know the RPC.
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, CriError::Refused { code, .. } if *code == tonic::Code::Unimplemented)
    }

    /// The server's own words, without the name of the RPC.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            CriError::Refused { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

/// A resumable or plain stream of container events.
pub type EventStream = tonic::Streaming<v1::ContainerEventResponse>;

/// What `ExecSync` brought back.
#[derive(Debug, Clone)]
pub struct ExecOutput {
    /// Exit code of the command.
    pub code: i32,
    /// Standard output followed by standard error.
    pub output: Vec<u8>,
}

impl Cri {
    /// A client of the server at `socket`; it connects when first used and again after
    /// the server went away. `timeout` bounds every call without a longer one of its own.
    #[must_use]
    pub fn new(socket: &Path, timeout: Duration) -> Cri {
        let socket = socket.to_path_buf();
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The URI is never dialled: the connector above answers for every address.
        let channel =
            Endpoint::from_static("http://cri.invalid").connect_with_connector_lazy(connect);
        Cri {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            image: ImageServiceClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            timeout,
        }
    }

    async fn call<T>(
        &self,
        rpc: &'static str,
        future: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CriError> {
        within(rpc, self.timeout, future).await
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<v1::VersionResponse, CriError> {
        let request = v1::VersionRequest {
            version: "0.1.0".into(),
        };
        self.call("Version", self.runtime.clone().version(request))
            .await
    }

    /// Conditions `RuntimeReady` and `NetworkReady`, and the runtime's features.
    pub async fn status(&self) -> Result<v1::StatusResponse, CriError> {
        let request = v1::StatusRequest { verbose: false };
        self.call("Status", self.runtime.clone().status(request))
            .await
    }

    /// The runtime's cgroup driver and the like.
    pub async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, CriError> {
        let request = v1::RuntimeConfigRequest {};
        self.call(
            "RuntimeConfig",
            self.runtime.clone().runtime_config(request),
        )
        .await
    }

    /// Makes and starts a pod sandbox; returns its id.
    pub async fn run_pod_sandbox(
        &self,
        config: v1::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, CriError> {
        let request = v1::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: handler.to_owned(),
        };
        // Twice the usual limit: network plugins may be slow.
        let answer = within(
            "RunPodSandbox",
            self.timeout * 2,
            self.runtime.clone().run_pod_sandbox(request),
        )
        .await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Stops every container of a sandbox and takes its network down; idempotent.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        gone_is_fine(
            self.call(
                "StopPodSandbox",
                self.runtime.clone().stop_pod_sandbox(request),
            )
            .await
            .map(drop),
        )
    }

    /// Removes a sandbox and its containers; idempotent.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        gone_is_fine(
            self.call(
                "RemovePodSandbox",
                self.runtime.clone().remove_pod_sandbox(request),
            )
            .await
            .map(drop),
        )
    }

    /// Status of one sandbox, with its addresses.
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, CriError> {
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        self.call(
            "PodSandboxStatus",
            self.runtime.clone().pod_sandbox_status(request),
        )
        .await?
        .status
        .ok_or(CriError::Incomplete {
            rpc: "PodSandboxStatus",
            field: "status",
        })
    }

    /// All sandboxes whose labels match; an empty map matches all.
    pub async fn list_pod_sandboxes(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::PodSandbox>, CriError> {
        let request = v1::ListPodSandboxRequest {
            filter: Some(v1::PodSandboxFilter {
                label_selector: labels,
                ..Default::default()
            }),
        };
        Ok(self
            .call(
                "ListPodSandbox",
                self.runtime.clone().list_pod_sandbox(request),
            )
            .await?
            .items)
    }

    /// All containers whose labels match; an empty map matches all.
    pub async fn list_containers(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::Container>, CriError> {
        let request = v1::ListContainersRequest {
            filter: Some(v1::ContainerFilter {
                label_selector: labels,
                ..Default::default()
            }),
        };
        Ok(self
            .call(
                "ListContainers",
                self.runtime.clone().list_containers(request),
            )
            .await?
            .containers)
    }

    /// Full status of one container.
    pub async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, CriError> {
        let request = v1::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        self.call(
            "ContainerStatus",
            self.runtime.clone().container_status(request),
        )
        .await?
        .status
        .ok_or(CriError::Incomplete {
            rpc: "ContainerStatus",
            field: "status",
        })
    }

    /// Makes a container in a sandbox; returns its id.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self
            .call(
                "CreateContainer",
                self.runtime.clone().create_container(request),
            )
            .await?
            .container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StartContainerRequest {
            container_id: id.to_owned(),
        };
        self.call(
            "StartContainer",
            self.runtime.clone().start_container(request),
        )
        .await
        .map(drop)
    }

    /// Stops a container: its stop signal, then SIGKILL after `grace`; idempotent.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let request = v1::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        gone_is_fine(
            within(
                "StopContainer",
                self.timeout + grace,
                self.runtime.clone().stop_container(request),
            )
            .await
            .map(drop),
        )
    }

    /// Removes an exited container and its record; idempotent.
    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        gone_is_fine(
            self.call(
                "RemoveContainer",
                self.runtime.clone().remove_container(request),
            )
            .await
            .map(drop),
        )
    }

    /// Has the runtime open the container's log file anew, after a rotation.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        let request = v1::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        self.call(
            "ReopenContainerLog",
            self.runtime.clone().reopen_container_log(request),
        )
        .await
        .map(drop)
    }

    /// Runs a command in a container to its end, at most `limit`; the runtime kills it then.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Result<ExecOutput, CriError> {
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command,
            timeout: i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX),
        };
        let answer = within(
            "ExecSync",
            self.timeout + limit,
            self.runtime.clone().exec_sync(request),
        )
        .await?;
        let mut output = answer.stdout;
        output.extend_from_slice(&answer.stderr);
        Ok(ExecOutput {
            code: answer.exit_code,
            output,
        })
    }

    /// One-time URL of an exec session.
    pub async fn exec(&self, request: v1::ExecRequest) -> Result<String, CriError> {
        Ok(self
            .call("Exec", self.runtime.clone().exec(request))
            .await?
            .url)
    }

    /// One-time URL of an attach session.
    pub async fn attach(&self, request: v1::AttachRequest) -> Result<String, CriError> {
        Ok(self
            .call("Attach", self.runtime.clone().attach(request))
            .await?
            .url)
    }

    /// One-time URL of a port-forward session.
    pub async fn port_forward(&self, sandbox: &str) -> Result<String, CriError> {
        let request = v1::PortForwardRequest {
            pod_sandbox_id: sandbox.to_owned(),
            port: Vec::new(),
        };
        Ok(self
            .call("PortForward", self.runtime.clone().port_forward(request))
            .await?
            .url)
    }

    /// CPU and memory use of every container.
    pub async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, CriError> {
        let request = v1::ListContainerStatsRequest { filter: None };
        Ok(self
            .call(
                "ListContainerStats",
                self.runtime.clone().list_container_stats(request),
            )
            .await?
            .stats)
    }

    /// The stream of container events. With `after`, a berth server resumes behind that
    /// sequence number; other servers ignore it.
    pub async fn container_events(&self, after: Option<u64>) -> Result<EventStream, CriError> {
        let mut request = tonic::Request::new(v1::GetEventsRequest {});
        if let Some(after) = after {
            request
                .metadata_mut()
                .insert(RESUME_AFTER, tonic::metadata::MetadataValue::from(after));
        }
        // No time limit: a server may send its headers only with the first event.
        self.runtime
            .clone()
            .get_container_events(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| refused("GetContainerEvents", &status))
    }
}

async fn within<T>(
    rpc: &'static str,
    limit: Duration,
    future: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CriError> {
    match tokio::time::timeout(limit, future).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refused(rpc, &status)),
        Err(_) => Err(CriError::Timeout { rpc, limit }),
    }
}

fn refused(rpc: &'static str, status: &tonic::Status) -> CriError {
    CriError::Refused {
        rpc,
        code: status.code(),
        message: status.message().to_owned(),
    }
}

/// Stops and removals succeed when there is nothing (left) to act on.
fn gone_is_fine(result: Result<(), CriError>) -> Result<(), CriError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
