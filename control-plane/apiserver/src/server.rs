//! Building and running the server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use berth_store::{Embedded, Store};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bootstrap,
    config::Config,
    http::{self, TlsError},
    kubelet::Kubelets,
    metrics::Metrics,
    pki::{self, Pki, PkiError},
    registry::Registry,
    token::Tokens,
};

/// How often old history is forgotten; each round forgets what is older than one period
/// (stock `--etcd-compaction-interval`).
const COMPACTION: Duration = Duration::from_secs(300);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The PKI is not usable.
    #[error("cannot prepare the PKI")]
    Pki(#[from] PkiError),
    /// The store does not open.
    #[error("cannot open the store")]
    Store(#[source] berth_store::embedded::OpenError),
    /// TLS is not usable.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The address is taken or not ours.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The objects which every cluster has could not be written.
    #[error("cannot create the initial objects: {0}")]
    Bootstrap(#[source] Box<berth_api::status::Status>),
}

/// What every request handler may use.
pub(crate) struct Api {
    pub config: Config,
    pub registry: Registry,
    pub tokens: Tokens,
    pub pki: Arc<Pki>,
    pub kubelets: Kubelets,
    pub metrics: Metrics,
    /// Streams and connections to kubelets that outlive their request's handler.
    pub tasks: TaskTracker,
    /// Cancelled when the server shuts down; watches end then.
    pub stop: CancellationToken,
    /// The address really listened on.
    pub address: SocketAddr,
}

/// A server that listens but does not answer yet.
pub struct Server {
    api: Arc<Api>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Server {
    /// Prepares PKI, store, initial objects and kubeconfigs, and binds the address.
    pub async fn bind(config: Config) -> Result<Self, RunError> {
        let pki = Arc::new(pki::ensure(&config)?);
        let tokens = Tokens::new(&pki.service_account_key)?;
        let store = Embedded::open(&config.data_dir.join("store")).map_err(RunError::Store)?;
        let registry = Registry::new(Arc::new(store) as Arc<dyn Store>);
        let listen_failed = |source| RunError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let acceptor = http::tls(&pki)?;
        pki.write_kubeconfigs(&config, &local_url(address))?;
        let api = Arc::new(Api {
            config,
            registry,
            tokens,
            kubelets: Kubelets::new(&pki)?,
            metrics: Metrics::new(),
            tasks: TaskTracker::new(),
            pki,
            stop: CancellationToken::new(),
            address,
        });
        bootstrap::ensure(&api)
            .await
            .map_err(|status| RunError::Bootstrap(Box::new(status)))?;
        Ok(Self {
            api,
            listener,
            acceptor,
        })
    }

    /// The address listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.api.address
    }

    /// The certificate authority, for identities made at run time.
    #[must_use]
    pub fn pki(&self) -> Arc<Pki> {
        Arc::clone(&self.api.pki)
    }

    /// Serves until `shutdown`, then lets open requests end and closes the store.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let stop = self.api.stop.clone();
        let compaction = compact_periodically(self.api.registry.clone());
        let serving = http::serve(self.listener, self.acceptor, Arc::clone(&self.api));
        let stopped = async {
            shutdown.await;
            stop.cancel();
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(serving, stopped) } => {}
            () = compaction => {}
        }
    }
}

/// The URL under which this machine reaches the server.
fn local_url(address: SocketAddr) -> String {
    let ip = if address.ip().is_unspecified() {
        std::net::IpAddr::from([127, 0, 0, 1])
    } else {
        address.ip()
    };
    format!("https://{}", SocketAddr::new(ip, address.port()))
}

async fn compact_periodically(registry: Registry) {
    let mut previous = None;
    loop {
        let now = registry.revision().await.ok();
        if let Some(upto) = previous {
            registry.compact(upto).await;
        }
        previous = now;
        tokio::time::sleep(COMPACTION).await;
    }
}

/// Runs the API server until `shutdown` completes.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let server = Server::bind(config).await?;
    tracing::info!(address = %server.local_addr(), "the API server listens");
    server.serve(shutdown).await;
    Ok(())
}
