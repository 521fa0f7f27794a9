//! `berth node`: CRI server, kubelet, service proxy and DNS of one machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::config::File;
use crate::network::HostNetwork;
use crate::signals::{End, Signals};
use crate::{clients, cri, host, kubelet};

/// How long the CRI server may take to serve before the start counts as failed.
const CRI_START: Duration = Duration::from_secs(30);

/// Flags of a node.
#[derive(clap::Args, Default, Clone)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    pub kubelet: kubelet::Options,
    /// Start although cgroup v2 lacks the cpu, memory or pids controller here
    ///
    /// CPU, memory and process limits of pods are then not enforced.
    #[arg(long)]
    pub allow_degraded_cgroups: bool,
}

/// What a node needs beside its flags.
pub struct Plan {
    /// The CRI server.
    pub cri: berth_cri::Config,
    /// The kubelet.
    pub kubelet: berth_kubelet::Config,
    /// The cluster DNS address.
    pub dns: IpAddr,
}

/// A node that runs.
pub struct Node {
    cri: berth_cri::Config,
    kubelet: berth_kubelet::Config,
    network: Option<HostNetwork>,
    tasks: TaskTracker,
    /// Kubelet, proxy and DNS end first.
    agents: CancellationToken,
    runtime: CancellationToken,
    /// Cancelled when a part failed by itself.
    pub failed: CancellationToken,
}

impl Node {
    /// Starts the CRI server, waits until it serves, then starts the agents.
    pub async fn start(plan: Plan) -> anyhow::Result<Node> {
        let node = Node {
            network: match &plan.kubelet.kubeconfig {
                Some(_) => Some(HostNetwork::prepare(&plan.cri.state_dir, plan.dns)?),
                None => None,
            },
            cri: plan.cri.clone(),
            kubelet: plan.kubelet.clone(),
            tasks: TaskTracker::new(),
            agents: CancellationToken::new(),
            runtime: CancellationToken::new(),
            failed: CancellationToken::new(),
        };
        let socket = plan.cri.socket.clone();
        let _ = std::fs::remove_file(&socket);
        node.spawn(
            "CRI server",
            berth_cri::serve(plan.cri, node.runtime.clone().cancelled_owned()),
        );
        node.wait_for_cri(&socket).await?;
        if let Some(kubeconfig) = &plan.kubelet.kubeconfig {
            node.start_services(kubeconfig, &plan.kubelet, plan.dns)
                .await?;
        }
        node.spawn(
            "kubelet",
            berth_kubelet::run(plan.kubelet, node.agents.clone().cancelled_owned()),
        );
        Ok(node)
    }

    /// Where this node keeps its audit log.
    pub fn audit_dir(&self) -> PathBuf {
        self.cri.audit.dir.clone()
    }

    async fn start_services(
        &self,
        kubeconfig: &Path,
        kubelet: &berth_kubelet::Config,
        dns: IpAddr,
    ) -> anyhow::Result<()> {
        let (services, follow) =
            berth_services::Services::follow(clients::from_kubeconfig(kubeconfig).await?);
        self.tasks.spawn(follow);
        let proxy = berth_service_proxy::Config::default();
        let stop = || self.agents.clone().cancelled_owned();
        self.spawn(
            "service proxy",
            berth_service_proxy::run(services.clone(), proxy, stop()),
        );
        let names = berth_dns::Config {
            listen: dns,
            port: 53,
            domain: kubelet.cluster_domain.clone(),
            resolv_conf: kubelet.resolv_conf.clone(),
        };
        self.spawn("DNS server", berth_dns::run(services, names, stop()));
        Ok(())
    }

    fn spawn<E: std::error::Error + Send + Sync + 'static>(
        &self,
        part: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let failed = self.failed.clone();
        self.tasks.spawn(async move {
            if let Err(error) = work.await {
                error!(error = host::chain(&error), "the {part} failed");
                failed.cancel();
            }
        });
    }

    async fn wait_for_cri(&self, socket: &Path) -> anyhow::Result<()> {
        let serves = async {
            while tokio::net::UnixStream::connect(socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = serves => Ok(()),
            () = self.failed.cancelled() => anyhow::bail!("the CRI server did not start"),
            () = tokio::time::sleep(CRI_START) => {
                anyhow::bail!("the CRI server does not serve on `{}` after {CRI_START:?}", socket.display())
            }
        }
    }

    /// Ends everything. With [`End::Remove`] every pod and every effect on the host goes;
    /// what cannot be removed is said after the rest is done.
    pub async fn stop(self, end: End) -> anyhow::Result<()> {
        self.agents.cancel();
        self.runtime.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if end == End::Leave {
            return Ok(());
        }
        info!("removing all pods");
        let removed = berth_cri::stop_all(self.cri)
            .await
            .context("cannot remove all pods");
        // After the containers: volumes cannot be unmounted under them.
        let cleaned = berth_kubelet::clean_up(&self.kubelet)
            .await
            .context("cannot remove what the kubelet made for pods");
        if let Some(network) = self.network {
            network.restore(&berth_service_proxy::Config::default());
        }
        removed.and(cleaned)
    }
}

/// Runs until SIGINT (removes all pods) or SIGTERM (leaves them).
pub fn run(options: Options, file: File) -> anyhow::Result<()> {
    host::demand_root("node")?;
    clients::install_crypto();
    let cri = cri::Options {
        socket: options.kubelet.cri_socket.clone(),
        allow_degraded_cgroups: options.allow_degraded_cgroups,
    }
    .resolve(&file)?;
    let mut raw = options.kubelet.raw(&file, options.allow_degraded_cgroups);
    raw.cri_socket = Some(cri.socket.clone());
    let dns: IpAddr = [10, 96, 0, 10].into();
    if raw.kubeconfig.is_some() && raw.cluster_dns.is_empty() {
        raw.cluster_dns = vec![dns];
    }
    let plan = Plan {
        dns: raw.cluster_dns.first().copied().unwrap_or(dns),
        kubelet: kubelet::resolve(raw)?,
        cri,
    };
    host::runtime()?.block_on(async {
        let mut signals = Signals::take()?;
        let node = Node::start(plan).await?;
        let failed = node.failed.clone();
        let end = tokio::select! {
            end = signals.wait() => end,
            () = failed.cancelled() => End::Leave,
        };
        signals.unless_interrupted(node.stop(end)).await??;
        anyhow::ensure!(!failed.is_cancelled(), "a part of the node failed");
        Ok(())
    })
}
