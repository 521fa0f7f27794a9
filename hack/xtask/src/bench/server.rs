//! A CRI server under measurement: its process and its client.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_proto::cri as v1;
use berth_proto::cri::image_service_client::ImageServiceClient;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};

use crate::up::tail;

/// No call takes longer on a machine that works.
const CALL_LIMIT: Duration = Duration::from_secs(60);
const READY_WITHIN: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// What a server is started with.
pub struct Setup {
    /// Names and versions of all that works together.
    pub name: String,
    /// Its command line.
    pub command: Command,
    /// Where it serves CRI.
    pub socket: PathBuf,
    /// Name (`comm`) of the process that it has for each pod.
    pub keeper: &'static str,
    /// Where its log and the pods' logs go.
    pub folder: PathBuf,
}

/// A running server. Whoever starts it ends it.
pub struct Server {
    pub client: Client,
    /// See [`Setup::keeper`].
    pub keeper: &'static str,
    child: Child,
}

/// What a pod's life needs of a server; a clone is another handle.
#[derive(Clone)]
pub struct Client {
    /// See [`Setup::name`].
    pub name: String,
    pub pods: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
    /// Where the pods' logs go.
    pub logs: PathBuf,
}

impl Server {
    /// Starts it and waits until it answers.
    pub async fn start(setup: Setup) -> Result<Self> {
        let Setup {
            name,
            mut command,
            socket,
            keeper,
            folder,
        } = setup;
        let log = folder.join("log");
        let file = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // a terminal's SIGINT is for the bench, which then ends in order
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let deadline = Instant::now() + READY_WITHIN;
        let channel = loop {
            match connect(&socket).await {
                Ok(channel) => break channel,
                Err(error) if Instant::now() > deadline || child.try_wait()?.is_some() => {
                    let _ = child.kill(); // it may have ended by itself
                    let text = tail(&log, 15);
                    bail!("{name} does not serve ({error:#}); the end of its log:\n{text}");
                }
                Err(_) => sleep(POLL).await,
            }
        };
        let client = Client {
            name,
            pods: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            logs: folder.join("logs"),
        };
        Ok(Self {
            client,
            keeper,
            child,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Removes every pod, then ends the process.
    pub async fn end(mut self) -> Result<()> {
        let removed = self.client.remove_all().await;
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot end it")?;
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                bail!("{} does not end by SIGTERM", self.client.name);
            }
            sleep(POLL).await;
        }
        removed
    }
}

impl Client {
    /// Pulls an image.
    pub async fn pull(&self, image: &str) -> Result<()> {
        let request = v1::PullImageRequest {
            image: Some(v1::ImageSpec {
                image: image.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let pulled = self.images.clone().pull_image(request).await;
        pulled.with_context(|| format!("{} cannot pull {image}", self.name))?;
        Ok(())
    }

    /// Stops and removes every pod.
    pub async fn remove_all(&self) -> Result<()> {
        let mut pods = self.pods.clone();
        let listed = pods.list_pod_sandbox(v1::ListPodSandboxRequest::default());
        for pod in listed.await?.into_inner().items {
            let pod_sandbox_id = pod.id;
            let stop = v1::StopPodSandboxRequest {
                pod_sandbox_id: pod_sandbox_id.clone(),
            };
            pods.stop_pod_sandbox(stop).await?;
            let remove = v1::RemovePodSandboxRequest { pod_sandbox_id };
            pods.remove_pod_sandbox(remove).await?;
        }
        Ok(())
    }
}

/// A channel to a server whose runtime and network are ready.
async fn connect(socket: &std::path::Path) -> Result<Channel> {
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()))?;
    let channel = endpoint.timeout(CALL_LIMIT).connect().await?;
    let mut pods = RuntimeServiceClient::new(channel.clone());
    let status = pods.status(v1::StatusRequest::default()).await?;
    let conditions = status.into_inner().status.unwrap_or_default().conditions;
    for needed in ["RuntimeReady", "NetworkReady"] {
        let found = conditions
            .iter()
            .find(|condition| condition.r#type == needed);
        let message = found.map(|condition| condition.message.as_str());
        ensure!(
            found.is_some_and(|condition| condition.status),
            "{needed} is not true: {}",
            message.unwrap_or_default()
        );
    }
    Ok(channel)
}
