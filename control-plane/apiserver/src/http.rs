//! The HTTPS listener: TLS 1.2 and 1.3, HTTP/1.1 with upgrades and HTTP/2, one task a
//! connection.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authn::{self, User},
    pki::Pki,
    response::Body,
    route,
    server::Api,
};

/// A client must finish the TLS handshake within this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The next request's headers must arrive within this. It also ends idle connections, so it is
/// longer than clients keep theirs (90 s), or they would meet a closing one.
const HEADERS: Duration = Duration::from_secs(180);
/// HTTP/2 connections are pinged this often; a peer that went away is found out.
const PING: Duration = Duration::from_secs(30);
/// Streams on one HTTP/2 connection; a client library holds one connection and a stream for
/// each watch.
const STREAMS: u32 = 4096;
/// How long open requests may go on after shutdown began.
const DRAIN: Duration = Duration::from_secs(2);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not parse.
    #[error("cannot parse the {what}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// The cause.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The library refuses key, certificate or authority.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    /// The verifier of client certificates cannot be made.
    #[error("cannot verify client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The server side of TLS: own certificate, client certificates optional and verified against
/// the authority.
pub fn tls(pki: &Pki) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = roots(pki)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::Verifier)?;
    let (chain, key) = pair(&pki.serving)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Setup)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The authority as a root store.
pub fn roots(pki: &Pki) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes())
        .map_err(pem("authority's certificate"))?;
    roots.add(ca).map_err(TlsError::Setup)?;
    Ok(roots)
}

/// A certificate chain and its key, decoded.
pub fn pair(
    pair: &crate::pki::KeyAndCert,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = CertificateDer::from_pem_slice(pair.cert_pem.as_bytes())
        .map_err(pem("serving certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(pem("serving key"))?;
    Ok((vec![chain], key))
}

fn pem(what: &'static str) -> impl FnOnce(rustls_pki_types::pem::Error) -> TlsError {
    move |source| TlsError::Pem { what, source }
}

/// Accepts connections until `stop`; then open requests get a moment to end.
pub async fn serve(listener: TcpListener, acceptor: TlsAcceptor, api: Arc<Api>) {
    let stop = api.stop.clone();
    let connections = TaskTracker::new();
    let aborted = CancellationToken::new();
    loop {
        // Cancel-safe: `accept` holds no state between calls.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let work = connection(stream, peer, acceptor.clone(), Arc::clone(&api));
                let aborted = aborted.clone();
                connections.spawn(async move {
                    aborted.run_until_cancelled(work).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: let some be freed.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait())
        .await
        .is_err()
    {
        aborted.cancel();
        connections.wait().await;
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, api: Arc<Api>) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates
        .and_then(|chain| chain.first())
        .and_then(authn::of_certificate)
        .map(Arc::new);
    let stop = api.stop.clone();
    let service = service_fn(move |request| answer(request, peer, user.clone(), Arc::clone(&api)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(STREAMS);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    user: Option<Arc<User>>,
    api: Arc<Api>,
) -> Result<Response<Body>, Infallible> {
    Ok(route::answer(request, peer, user.as_deref(), &api).await)
}
