//! One HTTP client per host: DNS, TLS, timeouts.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::auth::is_link_local_address;
use super::hosts::{Endpoint, Tls};

/// Idle connections are kept this long within one pull.
const IDLE: Duration = Duration::from_secs(15);

pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Why a host's client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A certificate or key cannot be read.
    #[error("cannot read certificates or key of `{path}`: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS refuses the configuration.
    #[error("cannot configure TLS: {0}")]
    Tls(rustls::Error),
    /// The resolver cannot be made.
    #[error("cannot configure name resolution: {0}")]
    Resolver(String),
}

/// Names to addresses by /etc/hosts and DNS, without the C library and its modules. Addresses that
/// are only good for this link are left out: a name must not lead to a metadata service.
#[derive(Clone)]
pub(crate) struct Resolver(TokioResolver);

impl Resolver {
    /// Reads /etc/resolv.conf and /etc/hosts; without a resolv.conf only the latter counts.
    pub fn from_system() -> Result<Self, TransportError> {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
            let nowhere = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            TokioResolver::builder_with_config(nowhere, TokioRuntimeProvider::default())
        });
        let resolver = builder
            .build()
            .map_err(|e| TransportError::Resolver(e.to_string()))?;
        Ok(Self(resolver))
    }
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.0.clone();
        Box::pin(async move {
            let found = resolver.lookup_ip(name.as_str()).await;
            let found = found.map_err(|e| io::Error::other(format!("lookup {name}: {e}")))?;
            let usable: Vec<SocketAddr> = found
                .iter()
                .filter(|address| !is_link_local_address(*address))
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if usable.is_empty() {
                return Err(io::Error::other(format!(
                    "lookup {name}: no usable address"
                )));
            }
            Ok(usable.into_iter())
        })
    }
}

/// The authorities trusted by default: the system's and the configured ones.
pub(crate) fn default_roots(extra: &[PathBuf]) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    // Single unreadable certificates of the system are no reason to trust none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in extra {
        add_roots(&mut roots, path)?;
    }
    Ok(roots)
}

/// Makes the client for one host.
pub(crate) fn client(
    endpoint: &Endpoint,
    resolver: Resolver,
    roots: &RootCertStore,
) -> Result<HttpClient, TransportError> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(endpoint.dial_timeout));
    // HTTP/1.1 on purpose: ranges of one layer then come over connections of their own.
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(&endpoint.tls, roots)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .build(connector))
}

fn tls_config(tls: &Tls, roots: &RootCertStore) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TransportError::Tls)?;
    let builder = if tls.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        let mut roots = roots.clone();
        for path in &tls.ca {
            add_roots(&mut roots, path)?;
        }
        builder.with_root_certificates(roots)
    };
    match tls.client.first() {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| pem(key, e.to_string()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(TransportError::Tls)
        }
    }
}

fn pem(path: &Path, reason: String) -> TransportError {
    TransportError::Pem {
        path: path.to_owned(),
        reason,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|e| pem(path, e.to_string()))
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), TransportError> {
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|e| pem(path, e.to_string()))?;
    }
    Ok(())
}

/// `skip_verify = true`: any certificate passes; signatures are still checked, so that the session
/// is at least with the holder of the certificate shown.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
