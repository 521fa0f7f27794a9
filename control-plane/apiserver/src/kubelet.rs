//! Connections to kubelets: TLS with the server's own client certificate, the kubelet's
//! certificate verified against the cluster's authority, redirects never followed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use berth_api::status::{self, Status};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::TaskTracker;

use crate::{
    http::{TlsError, pair, roots},
    pki::Pki,
    registry::{ObjectRef, Registry, core},
};

/// The port when the Node does not say another (`daemonEndpoints`).
const DEFAULT_PORT: u16 = 10250;
/// A kubelet must accept the connection, TLS included, within this.
const CONNECT: Duration = Duration::from_secs(10);

/// Reaches kubelets.
pub struct Kubelets {
    connector: TlsConnector,
}

impl Kubelets {
    /// With the server's client certificate.
    pub fn new(pki: &Pki) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = pair(&pki.kubelet_client)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots(pki)?)
            .with_client_auth_cert(chain, key)
            .map_err(TlsError::Setup)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Sends one request to the kubelet of `node` on a connection of its own.
    pub async fn send(
        &self,
        registry: &Registry,
        tasks: &TaskTracker,
        node: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Status> {
        let target = ObjectRef {
            resource: core("nodes"),
            namespace: "",
            name: node,
        };
        let address = address_of(&registry.get(&target).await?).ok_or_else(|| {
            status::internal(format!("no preferred addresses found for node \"{node}\""))
        })?;
        let refused = |error: &dyn std::fmt::Display| {
            status::internal(format!("error dialing the kubelet at {address}: {error}"))
        };
        let stream = match tokio::time::timeout(CONNECT, self.connect(node, address)).await {
            Ok(stream) => stream.map_err(|error| refused(&error))?,
            Err(_) => return Err(refused(&"timed out")),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| refused(&error))?;
        tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a kubelet ended");
            }
        });
        let response = sender.send_request(request).await;
        response.map_err(|error| refused(&error))
    }
}

impl Kubelets {
    /// Whoever answers at the address must be that node: its certificate carries the name.
    async fn connect(
        &self,
        node: &str,
        address: SocketAddr,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(node.to_owned()).map_err(std::io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}

/// The address and port of a node's kubelet: its first InternalIP, else ExternalIP.
fn address_of(node: &Value) -> Option<SocketAddr> {
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok());
    let addresses = node["status"]["addresses"].as_array()?;
    ["InternalIP", "ExternalIP"].into_iter().find_map(|wanted| {
        let of_type = addresses.iter().filter(|address| address["type"] == wanted);
        let mut ips = of_type.filter_map(|address| address["address"].as_str()?.parse().ok());
        Some(SocketAddr::new(ips.next()?, port.unwrap_or(DEFAULT_PORT)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_internal_address_is_preferred() {
        let node = json!({"status": {
            "addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "192.0.2.9"},
                {"type": "InternalIP", "address": "192.0.2.1"},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}},
        }});
        assert_eq!(address_of(&node), "192.0.2.1:10350".parse().ok());
        assert_eq!(address_of(&json!({})), None);
    }
}
