//! Runs the API server alone, for work on what uses it:
//! `cargo run -p berth-apiserver --example serve -- --data-dir D --listen 127.0.0.1:PORT`.
//! The kubeconfigs are then in `D/kubeconfig`; `--node NAME` adds one for a node.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use berth_apiserver::{Config, run};

fn config() -> Option<Config> {
    let mut data_dir = None;
    let mut listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut nodes = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match flag.as_str() {
            "--data-dir" => data_dir = Some(PathBuf::from(value)),
            "--listen" => listen = value.parse().ok()?,
            "--node" => nodes.push(value),
            _ => return None,
        }
    }
    let mut config = Config::new(data_dir?, listen.ip());
    config.listen = listen;
    config.node_names = nodes;
    Some(config)
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let Some(config) = config() else {
        eprintln!("usage: serve --data-dir DIR [--listen IP:PORT] [--node NAME]...");
        return ExitCode::from(64);
    };
    let shutdown = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    match run(config, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            ExitCode::FAILURE
        }
    }
}
