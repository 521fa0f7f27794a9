//! The endpoints over real TLS, before a CRI server that only hands out streaming URLs
//! and a streaming server that echoes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::cri::{self as v1};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::serve::serve_on;
use super::view::PodView;
use crate::config::{Config, RawConfig};
use crate::cri::Cri;
use crate::pod::PodUid;
use crate::pod::runtime::{ContainerRecord, ContainerState, PodRuntime, Sandbox};
use crate::pod::store::PodStore;

/// A client's certificate and key, DER.
type Client = (rustls_pki_types::CertificateDer<'static>, Vec<u8>);

struct Bench {
    address: SocketAddr,
    ca: rcgen::Certificate,
    issuer: Issuer<'static, rcgen::KeyPair>,
    logs: tempfile::TempDir,
    store: PodStore,
    tasks: JoinSet<()>,
}

fn authority() -> (rcgen::Certificate, Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test");
    let ca = params.self_signed(&key).unwrap();
    (ca, Issuer::new(params, key))
}

impl Bench {
    async fn start() -> Bench {
        let (ca, issuer) = authority();
        let logs = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = logs.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let serving = params.signed_by(&key, &issuer).unwrap();
        let config = Config::resolve(RawConfig {
            node_name: Some("n1".into()),
            client_ca: Some(write("ca.pem", ca.pem())),
            tls_cert: Some(write("tls.pem", serving.pem())),
            tls_key: Some(write("tls.key", key.serialize_pem())),
            ..RawConfig::default()
        })
        .unwrap();
        let mut tasks = JoinSet::new();
        let url = echo_server(&mut tasks).await;
        let socket = logs.path().join("cri.sock");
        fake_cri(&mut tasks, &socket, url);
        let store = PodStore::default();
        let cri = Cri::new(&socket, Duration::from_secs(10));
        let view = PodView::new(store.clone(), cri, logs.path().to_path_buf());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            serve_on(listener, view, &config, std::future::pending())
                .await
                .unwrap();
        });
        Bench {
            address,
            ca,
            issuer,
            logs,
            store,
            tasks,
        }
    }

    fn client(&self, name: &str, group: &str) -> Client {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key.serialize_der())
    }

    fn api_server(&self) -> Option<Client> {
        Some(self.client("kube-apiserver-kubelet-client", "kubeadm:cluster-admins"))
    }

    /// One request on a connection of its own.
    async fn send(
        &mut self,
        client: Option<Client>,
        request: Request<Empty<Bytes>>,
    ) -> Response<Incoming> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            Some((certificate, key)) => builder
                .with_client_auth_cert(vec![certificate], PrivatePkcs8KeyDer::from(key).into())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        self.tasks.spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.unwrap()
    }

    async fn get(&mut self, client: Option<Client>, path: &str) -> (StatusCode, String) {
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .body(Empty::new())
            .unwrap();
        let answer = self.send(client, request).await;
        let code = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    fn add_pod(&self, state: ContainerState) {
        let uid = PodUid::from("u1".to_owned());
        let log = self.logs.path().join("default_web_u1/c/0.log");
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "2026-01-01T00:00:00Z stdout F hello\n").unwrap();
        let pod = crate::testing::pod_of(&["c"], "Always");
        self.store.set(uid.clone(), Arc::new(pod));
        self.set_state(state);
    }

    fn set_state(&self, state: ContainerState) {
        let log = self.logs.path().join("default_web_u1/c/0.log");
        let runtime = PodRuntime {
            sandboxes: vec![Sandbox {
                id: "s1".into(),
                ready: true,
                ..Sandbox::default()
            }],
            containers: vec![ContainerRecord {
                id: "c1".into(),
                name: "c".into(),
                state,
                log_path: log.to_str().unwrap().into(),
                ..ContainerRecord::default()
            }],
        };
        let uid = PodUid::from("u1".to_owned());
        self.store.set_runtime(&uid, Arc::new(runtime));
    }
}

/// Answers Exec, Attach and PortForward with `url`, everything else with UNIMPLEMENTED.
fn fake_cri(tasks: &mut JoinSet<()>, socket: &Path, url: String) {
    let listener = UnixListener::bind(socket).unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let url = url.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let url = url.clone();
                async move {
                    let method = request.uri().path().rsplit('/').next();
                    let known = matches!(method, Some("Exec" | "Attach" | "PortForward"));
                    Ok::<_, Infallible>(grpc(known.then_some(v1::ExecResponse { url })))
                }
            });
            connections.spawn(async move {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}

/// One gRPC answer: a message behind its five-byte head, then the status as trailers.
fn grpc(
    message: Option<v1::ExecResponse>,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>> {
    let mut frames = Vec::new();
    let mut trailers = HeaderMap::new();
    let status = if message.is_some() { "0" } else { "12" };
    trailers.insert("grpc-status", status.parse().unwrap());
    if let Some(message) = message {
        let mut data = BytesMut::new();
        data.put_u8(0);
        data.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut data).unwrap();
        frames.push(Ok(Frame::data(data.freeze())));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    Response::builder()
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(StreamBody::new(futures::stream::iter(frames)))
        .unwrap()
}

/// Upgrades what asks for SPDY at its one path and echoes; returns the URL.
async fn echo_server(tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (upgrades, mut upgraded) = tokio::sync::mpsc::unbounded_channel();
                let service = service_fn(move |request: Request<Incoming>| {
                    let upgrades = upgrades.clone();
                    async move { Ok::<_, Infallible>(upgrade(request, &upgrades)) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                let echo = async {
                    let Some(request) = upgraded.recv().await else {
                        return;
                    };
                    let stream = hyper::upgrade::on(request).await.unwrap();
                    let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let _ = tokio::join!(served, echo);
            });
        }
    });
    url
}

fn upgrade(
    request: Request<Incoming>,
    upgrades: &tokio::sync::mpsc::UnboundedSender<Request<Incoming>>,
) -> Response<Full<Bytes>> {
    let is = |name: &str, value: &str| request.headers().get(name).is_some_and(|v| v == value);
    let right = request.uri().path() == "/exec/token"
        && is("upgrade", "SPDY/3.1")
        && is("x-stream-protocol-version", "v4.channel.k8s.io");
    if !right {
        let answer = Response::builder().status(StatusCode::NOT_FOUND);
        return answer.body(Full::from("no such token")).unwrap();
    }
    upgrades.send(request).unwrap();
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Full::default())
        .unwrap()
}

fn upgrading(path: &str, protocol: &str) -> Request<Empty<Bytes>> {
    Request::post(path)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, protocol)
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Empty::new())
        .unwrap()
}

#[tokio::test]
async fn who_may_come_in() {
    let mut bench = Bench::start().await;
    let (api, master) = (bench.api_server(), bench.client("admin", "system:masters"));
    let node = bench.client("system:node:n1", "system:nodes");
    for (client, path, code) in [
        (None, "/pods", 401),
        (None, "/no-such-path", 401),
        (Some(node.clone()), "/pods", 403),
        (Some(node), "/exec/default/web/c?command=id&output=1", 403),
        (Some(master), "/pods", 200),
        (api.clone(), "/pods", 200),
        (api.clone(), "/no-such-path", 404),
        (api.clone(), "/metrics", 200),
        // Open to everyone; this CRI server says it does not know the RPC.
        (None, "/healthz", 500),
    ] {
        let (got, body) = bench.get(client, path).await;
        assert_eq!(got.as_u16(), code, "{path}: {body}");
    }
    let (_, metrics) = bench.get(api, "/metrics").await;
    assert!(metrics.contains("kubelet_http_requests_total{path=\"pods\",code=\"403\"} 1"));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let mut bench = Bench::start().await;
    let (_, other) = authority();
    let own = std::mem::replace(&mut bench.issuer, other);
    let stranger = bench.client("kube-apiserver-kubelet-client", "system:masters");
    bench.issuer = own;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(bench.ca.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![stranger.0],
            PrivatePkcs8KeyDer::from(stranger.1).into(),
        )
        .unwrap();
    let stream = TcpStream::connect(bench.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    // With TLS 1.3 the client learns of the refusal with its first read.
    let refused = async {
        let mut stream = connector.connect(name, stream).await?;
        stream
            .write_all(b"GET /pods HTTP/1.1\r\nHost: x\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await
    };
    assert!(refused.await.is_err());
}

#[tokio::test]
async fn exec_is_tunnelled_and_half_closes() {
    let mut bench = Bench::start().await;
    bench.add_pod(ContainerState::Running);
    for path in [
        "/exec/default/web/c?command=cat&input=1&output=1",
        "/exec/default/web/u1/c?command=cat&input=1&output=1",
        "/attach/default/web/c?input=1&output=1",
        "/portForward/default/web",
    ] {
        let api = bench.api_server();
        let answer = bench.send(api, upgrading(path, "SPDY/3.1")).await;
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS, "{path}");
        assert_eq!(answer.headers()["upgrade"], "SPDY/3.1");
        let protocol = &answer.headers()["x-stream-protocol-version"];
        assert_eq!(protocol, "v4.channel.k8s.io");
        let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut echoed = String::new();
        stream.read_to_string(&mut echoed).await.unwrap();
        assert_eq!(echoed, "ping", "{path}");
    }
}

#[tokio::test]
async fn streams_that_cannot_be() {
    let mut bench = Bench::start().await;
    bench.add_pod(ContainerState::Running);
    for (path, protocol, code, text) in [
        (
            "/exec/default/web/c?command=id&output=1",
            "websocket",
            400,
            "SPDY/3.1",
        ),
        (
            "/exec/default/web/c?output=1",
            "SPDY/3.1",
            400,
            "at least 1 command",
        ),
        (
            "/exec/default/web/c?command=id",
            "SPDY/3.1",
            400,
            "at least 1 of stdin",
        ),
        (
            "/exec/default/web/x?command=id&output=1",
            "SPDY/3.1",
            404,
            "container not found (\"x\")",
        ),
        (
            "/exec/default/web/u2/c?command=id&output=1",
            "SPDY/3.1",
            404,
            "does not exist",
        ),
        (
            "/portForward/default/none",
            "SPDY/3.1",
            404,
            "does not exist",
        ),
    ] {
        let api = bench.api_server();
        let answer = bench.send(api, upgrading(path, protocol)).await;
        let got = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(got == code && body.contains(text), "{path}: {got} {body}");
    }
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container() {
    let mut bench = Bench::start().await;
    bench.add_pod(ContainerState::Running);
    let api = bench.api_server();
    let request = Request::get("/containerLogs/default/web/c?follow=true")
        .header(header::HOST, "localhost")
        .body(Empty::new())
        .unwrap();
    let mut body = bench.send(api, request).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "hello\n");
    let log = bench.logs.path().join("default_web_u1/c/0.log");
    // Rotated twice before the reader looks again.
    std::fs::rename(&log, log.with_extension("log.20260101-000000")).unwrap();
    let rotated = log.with_extension("log.20260101-000001");
    std::fs::write(&rotated, "2026-01-01T00:00:01Z stdout F in between\n").unwrap();
    std::fs::write(&log, "2026-01-01T00:00:01Z stdout P after \n").unwrap();
    let line = "2026-01-01T00:00:01Z stdout F rotation\n";
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
    bench.set_state(ContainerState::Exited);
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(rest, "in between\nafter rotation\n");
    let api = bench.api_server();
    let (code, text) = bench.get(api, "/containerLogs/default/web/x").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(text, "container \"x\" not found in pod \"web\"\n");
}
