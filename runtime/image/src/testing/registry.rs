//! A registry with switches, on loopback, over HTTP or TLS, with a token service of its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::image::{INDEX, MANIFEST, TestImage};
use crate::Digest;

/// What the registry demands.
#[derive(Clone, Default)]
pub(crate) enum Auth {
    #[default]
    None,
    Basic,
    /// A token from its own token service, which demands Basic `user:secret` if told so.
    Token {
        realm: Option<String>,
        needs_user: bool,
    },
}

#[derive(Clone, Default)]
pub(crate) struct Behaviour {
    pub auth: Auth,
    pub tls: bool,
    /// Blobs are served by a redirect to this origin.
    pub blob_redirect: Option<String>,
    pub ranges: bool,
    /// The first blob answers end after this many bytes.
    pub broken_at: Option<usize>,
    /// Served in place of the blob asked for.
    pub wrong_blob: bool,
    /// Content type of manifests, in place of the right one.
    pub media_type: Option<String>,
    /// Digest header in place of the right one.
    pub no_digest_header: bool,
}

/// One request seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub target: String,
    pub headers: HeaderMap,
}

impl Seen {
    pub fn authorization(&self) -> Option<&str> {
        self.headers
            .get(header::AUTHORIZATION)
            .map(|value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Content {
    manifests: HashMap<String, (String, Vec<u8>)>,
    blobs: HashMap<String, Vec<u8>>,
}

struct Shared {
    behaviour: Behaviour,
    address: SocketAddr,
    content: Mutex<Content>,
    seen: Mutex<Vec<Seen>>,
    broken: AtomicUsize,
}

pub(crate) struct Registry {
    shared: Arc<Shared>,
    ca: Option<tempfile::NamedTempFile>,
    _tasks: JoinSet<()>,
}

impl Registry {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, ca) = if behaviour.tls { tls() } else { (None, None) };
        let shared = Arc::new(Shared {
            behaviour,
            address,
            content: Mutex::default(),
            seen: Mutex::default(),
            broken: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared), acceptor));
        Self {
            shared,
            ca,
            _tasks: tasks,
        }
    }

    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    pub fn url(&self) -> String {
        self.shared.url()
    }

    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_ref().map(tempfile::NamedTempFile::path)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Serves `image` as index under `name`.
    pub fn push(&self, name: &str, image: &TestImage) {
        let mut content = self.shared.content.lock().unwrap();
        let index = (INDEX.to_owned(), image.index.clone());
        let manifest = (MANIFEST.to_owned(), image.manifest.clone());
        content.manifests.insert(name.to_owned(), index.clone());
        content
            .manifests
            .insert(Digest::of(&image.index).to_string(), index);
        content
            .manifests
            .insert(Digest::of(&image.manifest).to_string(), manifest);
        for blob in image.blobs.iter().chain([&image.config]) {
            content
                .blobs
                .insert(Digest::of(blob).to_string(), blob.clone());
        }
    }

    pub fn push_document(&self, name: &str, media_type: &str, bytes: &[u8]) {
        let document = (media_type.to_owned(), bytes.to_vec());
        let mut content = self.shared.content.lock().unwrap();
        content
            .manifests
            .insert(Digest::of(bytes).to_string(), document.clone());
        content.manifests.insert(name.to_owned(), document);
    }

    pub fn blob_requests(&self) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.target.contains("/blobs/"))
            .count()
    }
}

fn tls() -> (Option<TlsAcceptor>, Option<tempfile::NamedTempFile>) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
            .unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, authority_cert.pem().as_bytes()).unwrap();
    (Some(TlsAcceptor::from(Arc::new(config))), Some(file))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(&request)) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            // Broken connections are part of the tests.
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
                None => {
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .body(Full::new(body.into()))
        .unwrap()
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    answer(
        status,
        format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#),
    )
}

impl Shared {
    fn url(&self) -> String {
        let scheme = if self.behaviour.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let target = request.uri().to_string();
        self.seen.lock().unwrap().push(Seen {
            target: target.clone(),
            headers: request.headers().clone(),
        });
        let authorization = request
            .headers()
            .get(header::AUTHORIZATION)
            .map(|value| value.to_str().unwrap());
        if target.starts_with("/token") {
            return self.token(authorization);
        }
        let allowed = match &self.behaviour.auth {
            Auth::None => true,
            Auth::Basic => authorization == Some("Basic dXNlcjpzZWNyZXQ="),
            Auth::Token { .. } => authorization == Some("Bearer the-token"),
        };
        // Storage behind a redirect knows no authorisation.
        if !allowed && !target.starts_with("/storage/") {
            return self.challenge();
        }
        let path = request.uri().path();
        match path.rsplit_once('/') {
            Some((before, name)) if before.ends_with("/manifests") => self.manifest(name, request),
            Some((before, name)) if before.ends_with("/blobs") => {
                match &self.behaviour.blob_redirect {
                    Some(origin) => redirect(&format!("{origin}/storage/blob/{name}")),
                    None => self.blob(name, request.headers()),
                }
            }
            Some(("/storage/blob", name)) => self.blob(name, request.headers()),
            _ => error(
                StatusCode::NOT_FOUND,
                "NAME_UNKNOWN",
                "repository name not known to registry",
            ),
        }
    }

    fn token(&self, authorization: Option<&str>) -> Answer {
        let needs_user = matches!(
            self.behaviour.auth,
            Auth::Token {
                needs_user: true,
                ..
            }
        );
        if needs_user && authorization != Some("Basic dXNlcjpzZWNyZXQ=") {
            return answer(
                StatusCode::UNAUTHORIZED,
                r#"{"details":"incorrect username or password"}"#,
            );
        }
        answer(StatusCode::OK, r#"{"token":"the-token","expires_in":300}"#)
    }

    fn challenge(&self) -> Answer {
        let mut answer = error(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "authentication required",
        );
        let value = match &self.behaviour.auth {
            Auth::None | Auth::Basic => "Basic realm=\"test\"".to_owned(),
            Auth::Token { realm, .. } => {
                let own = || format!("{}/token", self.url());
                format!(
                    "Bearer realm=\"{}\",service=\"test\"",
                    realm.clone().unwrap_or_else(own)
                )
            }
        };
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value.try_into().unwrap());
        answer
    }

    fn manifest(&self, name: &str, request: &Request<Incoming>) -> Answer {
        let content = self.content.lock().unwrap();
        let Some((media_type, bytes)) = content.manifests.get(name) else {
            return error(
                StatusCode::NOT_FOUND,
                "MANIFEST_UNKNOWN",
                "manifest unknown",
            );
        };
        let mut builder = Response::builder().header(
            header::CONTENT_TYPE,
            self.behaviour.media_type.as_ref().unwrap_or(media_type),
        );
        if !self.behaviour.no_digest_header {
            builder = builder.header("docker-content-digest", Digest::of(bytes).as_str());
        }
        let body = if request.method() == "HEAD" {
            Vec::new()
        } else {
            bytes.clone()
        };
        builder.body(Full::new(body.into())).unwrap()
    }

    fn blob(&self, name: &str, headers: &HeaderMap) -> Answer {
        let content = self.content.lock().unwrap();
        let Some(blob) = content.blobs.get(name) else {
            return error(
                StatusCode::NOT_FOUND,
                "BLOB_UNKNOWN",
                "blob unknown to registry",
            );
        };
        let mut blob = blob.clone();
        if self.behaviour.wrong_blob {
            let last = blob.len() - 1;
            blob[last] ^= 1;
        }
        if let Some(at) = self.behaviour.broken_at
            && blob.len() > at
            && self.broken.fetch_add(1, Ordering::Relaxed) < 3
        {
            return self.range(&blob, headers, Some(at));
        }
        self.range(&blob, headers, None)
    }

    fn range(&self, blob: &[u8], headers: &HeaderMap, cut: Option<usize>) -> Answer {
        let range = headers.get(header::RANGE).filter(|_| self.behaviour.ranges);
        let (start, end) = match range.map(|range| range.to_str().unwrap()) {
            Some(range) => {
                let (start, end) = range
                    .strip_prefix("bytes=")
                    .unwrap()
                    .split_once('-')
                    .unwrap();
                (start.parse().unwrap(), end.parse::<usize>().unwrap() + 1)
            }
            None => (0, blob.len()),
        };
        let sent = cut.map_or(end, |cut| (start + cut).min(end));
        let mut builder = Response::builder();
        if range.is_some() {
            let value = format!("bytes {start}-{}/{}", end - 1, blob.len());
            builder = builder
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, value);
        }
        // Without a content length the body's end is the answer's: the client must notice itself.
        builder
            .body(Full::new(Bytes::copy_from_slice(&blob[start..sent])))
            .unwrap()
    }
}

fn redirect(location: &str) -> Answer {
    Response::builder()
        .status(StatusCode::TEMPORARY_REDIRECT)
        .header(header::LOCATION, location)
        .body(Full::default())
        .unwrap()
}

/// Keeps `PathBuf` users of [`Registry::ca`] short.
pub(crate) fn ca_path(registry: &Registry) -> PathBuf {
    registry.ca().unwrap().to_owned()
}
