//! The TLS side: the serving certificate and the check of client certificates.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::{Config, ServingCertificate};

/// How often the files of the serving certificate are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Largest PEM file taken, in bytes.
const MAX_PEM: u64 = 1 << 20;

/// Why the TLS side cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` has no usable PEM {what}", path.display())]
    Pem {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// No certificate can be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[source] rcgen::Error),
    /// Key, certificate or protocol versions do not fit.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    /// The client CA is unusable.
    #[error("cannot verify clients by `{}`", path.display())]
    ClientCa {
        path: PathBuf,
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// The server's configuration: clients may show a certificate of `client_ca`, and one that
/// does not verify ends the handshake. Without a client CA none is asked for.
pub fn server_config(config: &Config) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?;
    let builder = match &config.client_ca {
        Some(path) => builder.with_client_cert_verifier(verifier(path, provider.clone())?),
        None => builder.with_no_client_auth(),
    };
    let resolver: Arc<dyn ResolvesServerCert> = match &config.serving {
        ServingCertificate::Files { cert, key } => {
            Arc::new(FromFiles::open(cert.clone(), key.clone(), provider)?)
        }
        ServingCertificate::SelfSigned => {
            let key = self_signed(&config.node_name, config.node_ip, &provider)?;
            Arc::new(rustls::sign::SingleCertAndKey::from(key))
        }
    };
    let mut server = builder.with_cert_resolver(resolver);
    // SPDY is an HTTP/1.1 upgrade: HTTP/2 has none.
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(TlsError::Setup)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|source| TlsError::ClientCa {
            path: path.to_path_buf(),
            source,
        })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut content = Vec::new();
        File::open(path)?.take(MAX_PEM).read_to_end(&mut content)?;
        Ok(content)
    };
    read().map_err(|source| TlsError::Read {
        path: path.to_path_buf(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem {
        what: "certificate",
        path: path.to_path_buf(),
        source,
    };
    let content = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(rustls_pki_types::pem::Error::NoItemsFound)),
        other => other.map_err(wrong),
    }
}

fn load(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert)?;
    let content = read(key)?;
    let parsed = PrivateKeyDer::from_pem_slice(&content).map_err(|source| TlsError::Pem {
        what: "private key",
        path: key.to_path_buf(),
        source,
    })?;
    CertifiedKey::from_der(chain, parsed, provider).map_err(TlsError::Setup)
}

fn self_signed(
    node: &str,
    address: IpAddr,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let names = vec![node.to_owned(), "localhost".into(), address.to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(TlsError::SelfSigned)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let chain = vec![made.cert.der().clone()];
    CertifiedKey::from_der(chain, key.into(), provider).map_err(TlsError::Setup)
}

/// A certificate in files, read again when they change.
#[derive(Debug)]
struct FromFiles {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

impl FromFiles {
    fn open(
        cert: PathBuf,
        key: PathBuf,
        provider: Arc<CryptoProvider>,
    ) -> Result<FromFiles, TlsError> {
        let loaded = Loaded {
            changed: [changed(&cert), changed(&key)],
            key: Arc::new(load(&cert, &key, &provider)?),
            looked: Instant::now(),
        };
        Ok(FromFiles {
            cert,
            key,
            provider,
            loaded: Mutex::new(loaded),
        })
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

impl ResolvesServerCert for FromFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.looked.elapsed() > LOOK_AGAIN {
            loaded.looked = Instant::now();
            let seen = [changed(&self.cert), changed(&self.key)];
            if seen != loaded.changed {
                match load(&self.cert, &self.key, &self.provider) {
                    Ok(key) => {
                        loaded.key = Arc::new(key);
                        loaded.changed = seen;
                    }
                    // Half a pair, perhaps: the old one serves until both are there.
                    Err(error) => tracing::warn!(
                        error = crate::chain::chain(&error),
                        "the serving certificate stays as it was"
                    ),
                }
            }
        }
        Some(loaded.key.clone())
    }
}
