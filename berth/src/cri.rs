//! `berth cri`: the CRI server alone.

use std::path::PathBuf;

use anyhow::Context;

use crate::config::{ConfigError, File};
use crate::{host, signals};

/// Flags of the CRI server.
#[derive(clap::Args, Default, Clone)]
#[group(skip)]
pub struct Options {
    /// Unix socket to serve on [default: /run/berth/cri.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Start although cgroup v2 lacks the cpu, memory or pids controller here
    ///
    /// CPU, memory and process limits of pods are then not enforced.
    #[arg(long)]
    pub allow_degraded_cgroups: bool,
}

impl Options {
    /// The configuration by flags, then file, then default.
    pub fn resolve(&self, file: &File) -> Result<berth_cri::Config, ConfigError> {
        let mut raw = file.cri.clone();
        raw.socket = self.socket.clone().or(raw.socket);
        raw.allow_degraded_cgroups |= self.allow_degraded_cgroups;
        berth_cri::Config::resolve(raw).map_err(|e| ConfigError::Value(host::chain(&e)))
    }
}

/// Runs until SIGINT or SIGTERM; pods go on running either way.
pub fn run(options: Options, file: File) -> anyhow::Result<()> {
    let config = options.resolve(&file)?;
    host::runtime()?.block_on(async {
        let mut signals = signals::Signals::take()?;
        let stop = async move {
            signals.wait().await;
        };
        berth_cri::serve(config, stop)
            .await
            .context("the CRI server failed")
    })
}
