//! The CRI server of this machine, asked over its socket: works when the API server is down.

use std::path::{Path, PathBuf};

use anyhow::Context;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

/// Where the CRI server is.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    /// Unix socket of the CRI server
    #[arg(long, value_name = "PATH", default_value = "/run/berth/cri.sock")]
    pub cri_socket: PathBuf,
}

/// Connects to the CRI server.
pub async fn connect(socket: &Path) -> anyhow::Result<RuntimeServiceClient<Channel>> {
    let path = socket.to_owned();
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                tokio::net::UnixStream::connect(path)
                    .await
                    .map(TokioIo::new)
            }
        }))
        .await
        .with_context(|| {
            format!(
                "no CRI server answers on `{}`; is berth running?",
                socket.display()
            )
        })?;
    Ok(RuntimeServiceClient::new(channel))
}

/// Runs one question on a small runtime.
pub fn ask<T>(question: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(question)
}

/// Nanoseconds since the epoch as an age, as kubectl writes it.
pub fn age(since: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    let seconds = (now - since).max(0) / 1_000_000_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ages_read_as_kubectl_s() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let ago = |s: u64| {
            super::age(
                i64::try_from(now.as_nanos()).unwrap() - i64::try_from(s).unwrap() * 1_000_000_000,
            )
        };
        assert_eq!(ago(5), "5s");
        assert_eq!(ago(600), "10m");
        assert_eq!(ago(10_000), "2h");
        assert_eq!(ago(200_000), "2d");
    }
}
