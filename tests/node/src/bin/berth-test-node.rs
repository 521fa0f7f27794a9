//! `berth-test-node serve|stop CONFIG.toml`: the CRI server in a process that a test can
//! kill.

use anyhow::{Context, Result, bail};
use berth_cri::{Config, RawConfig};

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().context("serve or stop is required")?;
    let path = arguments.next().context("a configuration is required")?;
    let raw: RawConfig = toml::from_str(&std::fs::read_to_string(path)?)?;
    let config = Config::resolve(raw)?;
    match verb.as_str() {
        "serve" => berth_cri::serve(config, std::future::pending()).await?,
        "stop" => berth_cri::stop_all(config).await?,
        other => bail!("unknown verb `{other}`"),
    }
    Ok(())
}
