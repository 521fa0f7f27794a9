//! `berth server`: API server, scheduler and controllers.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use berth_apiserver::Server;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::config::{self, File};
use crate::{clients, host, signals};

/// Flags of the control plane.
#[derive(clap::Args, Default)]
#[group(skip)]
pub struct Options {
    /// Where HTTPS is served [default: 0.0.0.0:6443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address by which nodes and pods reach the server [default: source address of the default route]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_address: Option<IpAddr>,
    /// Directory of PKI, kubeconfigs and store [default: /var/lib/berth/server]
    #[arg(long, value_name = "DIR")]
    pub server_data_dir: Option<PathBuf>,
    /// Write what a node of this name needs to join; may be given more than once
    ///
    /// Into kubeconfig/ of the server's directory: node-NAME.conf, and node-NAME.crt and .key, with
    /// which its kubelet serves. pki/ca.crt is the authority of the kubelet's clients.
    #[arg(long = "node", value_name = "NAME")]
    pub nodes: Vec<String>,
}

impl Options {
    /// The configuration by flags, then file, then default.
    pub fn resolve(&self, file: &config::Server) -> berth_apiserver::Config {
        let data_dir = self
            .server_data_dir
            .clone()
            .or(file.data_dir.clone())
            .unwrap_or_else(|| "/var/lib/berth/server".into());
        let advertise = self
            .advertise_address
            .or(file.advertise_address)
            .unwrap_or_else(host::default_address);
        let mut config = berth_apiserver::Config::new(data_dir, advertise);
        if let Some(listen) = self.listen.or(file.listen) {
            config.listen = listen;
        }
        config.node_names.clone_from(&self.nodes);
        config
    }
}

/// A control plane that serves.
pub struct ControlPlane {
    /// Where the kubeconfigs are.
    pub kubeconfigs: PathBuf,
    /// The authority, for identities made while it runs.
    pub pki: std::sync::Arc<berth_apiserver::pki::Pki>,
    tasks: TaskTracker,
    clients: CancellationToken,
    server: CancellationToken,
}

impl ControlPlane {
    /// Binds the address, then starts server, scheduler and controllers.
    pub async fn start(config: berth_apiserver::Config) -> anyhow::Result<ControlPlane> {
        let kubeconfigs = config.data_dir.join("kubeconfig");
        let server = Server::bind(config)
            .await
            .context("cannot start the API server")?;
        info!(address = %server.local_addr(), "API server listens");
        let plane = ControlPlane {
            kubeconfigs,
            pki: server.pki(),
            tasks: TaskTracker::new(),
            clients: CancellationToken::new(),
            server: CancellationToken::new(),
        };
        plane
            .tasks
            .spawn(server.serve(plane.server.clone().cancelled_owned()));
        plane.start_scheduler().await?;
        plane.start_controllers().await?;
        Ok(plane)
    }

    async fn start_scheduler(&self) -> anyhow::Result<()> {
        let client = clients::from_kubeconfig(&self.kubeconfigs.join("scheduler.conf")).await?;
        let stop = self.clients.clone().cancelled_owned();
        self.tasks.spawn(berth_scheduler::run(client, stop));
        Ok(())
    }

    async fn start_controllers(&self) -> anyhow::Result<()> {
        let mut own = std::collections::BTreeMap::new();
        for name in berth_controllers::NAMES {
            let path = self.kubeconfigs.join(format!("controller-{name}.conf"));
            own.insert(*name, clients::from_kubeconfig(&path).await?);
        }
        let (ca, stop) = (self.pki.ca_pem().to_owned(), self.clients.clone());
        self.tasks
            .spawn(async move { berth_controllers::run(|name| own[name].clone(), ca, stop).await });
        Ok(())
    }

    /// Ends the clients first, then the server.
    pub async fn stop(self) {
        self.clients.cancel();
        self.server.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Copies the administrator's kubeconfig to where people look for it.
pub fn publish_admin(kubeconfigs: &Path, to: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(kubeconfigs.join("admin.conf"))
        .context("cannot read the administrator's kubeconfig")?;
    host::write_private(to, &text).with_context(|| format!("cannot write `{}`", to.display()))
}

/// Runs until SIGINT or SIGTERM.
pub fn run(options: Options, file: File) -> anyhow::Result<()> {
    clients::install_crypto();
    host::runtime()?.block_on(async {
        let mut signals = signals::Signals::take()?;
        let plane = ControlPlane::start(options.resolve(&file.server)).await?;
        println!(
            "kubeconfig: {}",
            plane.kubeconfigs.join("admin.conf").display()
        );
        signals.wait().await;
        signals.unless_interrupted(plane.stop()).await
    })
}
