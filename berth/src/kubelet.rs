//! `berth kubelet`: the kubelet alone, on any CRI server and against any API server.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;

use crate::config::{ConfigError, File};
use crate::{clients, host, signals};

/// Flags of the kubelet.
#[derive(clap::Args, Default, Clone)]
#[group(skip)]
pub struct Options {
    /// Name of the Node object [default: the host name in lower case]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of the node, its InternalIP [default: source address of the default route]
    #[arg(long, value_name = "ADDRESS")]
    pub node_ip: Option<IpAddr>,
    /// Unix socket of the CRI server [default: /run/berth/cri.sock]
    #[arg(long, value_name = "PATH")]
    pub cri_socket: Option<PathBuf>,
    /// How to reach the API server; without it only static pods run
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Directory of static pod manifests [default: none]
    #[arg(long, value_name = "DIR")]
    pub static_pod_dir: Option<PathBuf>,
}

impl Options {
    /// The configuration by flags, then file.
    pub fn raw(&self, file: &File, degraded: bool) -> berth_kubelet::RawConfig {
        let mut raw = file.kubelet.clone();
        raw.node_name = self.node_name.clone().or(raw.node_name);
        raw.node_ip = self.node_ip.or(raw.node_ip);
        raw.cri_socket = self.cri_socket.clone().or(raw.cri_socket);
        raw.kubeconfig = self.kubeconfig.clone().or(raw.kubeconfig);
        raw.static_pod_dir = self.static_pod_dir.clone().or(raw.static_pod_dir);
        raw.allow_degraded_cgroups |= degraded;
        raw
    }
}

/// The resolved configuration, errors as wrong usage.
pub fn resolve(raw: berth_kubelet::RawConfig) -> Result<berth_kubelet::Config, ConfigError> {
    berth_kubelet::Config::resolve(raw).map_err(|e| ConfigError::Value(host::chain(&e)))
}

/// Flags of `berth kubelet` as a command.
#[derive(clap::Args)]
#[group(skip)]
pub struct Alone {
    #[command(flatten)]
    kubelet: Options,
    /// Start although cgroup v2 lacks the cpu, memory or pids controller here
    ///
    /// CPU, memory and process limits of pods are then not enforced.
    #[arg(long)]
    allow_degraded_cgroups: bool,
}

/// Runs until SIGINT or SIGTERM; pods go on running either way.
pub fn run(options: Alone, file: File) -> anyhow::Result<()> {
    clients::install_crypto();
    let config = resolve(options.kubelet.raw(&file, options.allow_degraded_cgroups))?;
    host::runtime()?.block_on(async {
        let mut signals = signals::Signals::take()?;
        let stop = async move {
            signals.wait().await;
        };
        berth_kubelet::run(config, stop)
            .await
            .context("the kubelet failed")
    })
}
