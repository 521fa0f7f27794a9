//! The cluster's DNS, after the Kubernetes DNS specification 1.1.0: Services and
//! headless endpoints below the cluster domain, everything else from the node's
//! own name servers.

mod server;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_services::Services;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tracing::warn;

pub use zone::Zone;

/// A TCP client that says nothing is closed after this time.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers kept for a TCP client that does not read.
const TCP_RESPONSES: usize = 32;

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to serve on, port 53: the cluster DNS address, which must be on a link.
    pub listen: IpAddr,
    /// Port; 53 but in tests.
    pub port: u16,
    /// The cluster domain, `cluster.local`.
    pub domain: String,
    /// The node's resolv.conf, whose servers are asked for names outside the domain.
    pub resolv_conf: PathBuf,
}

/// Why the server could not serve.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is not a name.
    #[error("`{domain}` is not a domain name")]
    Domain {
        /// The text given.
        domain: String,
    },
    /// The address cannot be bound.
    #[error("cannot serve DNS on {address}")]
    Bind {
        /// Address and port.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Serving ended by itself.
    #[error("the DNS server stopped: {0}")]
    Stopped(String),
}

/// Serves until `shutdown`.
///
/// # Errors
/// The address cannot be bound, or the sockets failed.
pub async fn run(
    services: Services,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DnsError> {
    let address = SocketAddr::new(config.listen, config.port);
    let bind = |source| DnsError::Bind { address, source };
    let udp = UdpSocket::bind(address).await.map_err(bind)?;
    let tcp = TcpListener::bind(address).await.map_err(bind)?;
    let empty = Zone::new(&config.domain, &[], &[]).ok_or_else(|| DnsError::Domain {
        domain: config.domain.clone(),
    })?;
    let (publish, zone) = watch::channel(Arc::new(empty));
    let mut server = Server::new(server::Handler {
        zone,
        upstream: upstream(&config),
    });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_RESPONSES);
    tokio::select! {
        () = shutdown => {
            server.shutdown_gracefully().await.map_err(|e| DnsError::Stopped(e.to_string()))
        }
        () = follow_zone(services, &config.domain, publish) => {
            Err(DnsError::Stopped("the watches ended".into()))
        }
    }
}

/// The node's name servers; without any, names outside the domain are refused.
fn upstream(config: &Config) -> Option<TokioResolver> {
    let text = std::fs::read(&config.resolv_conf)
        .inspect_err(
            |error| warn!(%error, path = %config.resolv_conf.display(), "no upstream name servers"),
        )
        .ok()?;
    let (servers, options) = parse_resolv_conf(text)
        .inspect_err(
            |error| warn!(%error, path = %config.resolv_conf.display(), "no upstream name servers"),
        )
        .ok()?;
    let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().ok()
}

async fn follow_zone(mut services: Services, domain: &str, publish: watch::Sender<Arc<Zone>>) {
    while services.changed().await {
        let (services, slices) = services.now();
        if let Some(zone) = Zone::new(domain, &services, &slices) {
            publish.send_replace(Arc::new(zone));
        }
    }
}
