//! exec, attach, port-forward and log cross the server unchanged, and only for who may.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test crate uses its own part")]
mod support;

use std::sync::Arc;

use berth_apiserver::pki::{Identity, KeyAndCert};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use support::{Cluster, has_kubectl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const OBJECTS: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: default}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: default}
spec: {containers: [{name: c, image: busybox}]}
";

fn parts(pair: &KeyAndCert) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).unwrap()];
    (
        chain,
        PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
    )
}

fn roots(cluster: &Cluster) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(cluster.pki.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A kubelet that demands the API server's certificate, reports each request's head, upgrades
/// POSTs and echoes their bytes, and answers GETs with a log line.
async fn kubelet(cluster: &Cluster) -> (u16, mpsc::UnboundedReceiver<String>) {
    let ip = std::net::IpAddr::from([127, 0, 0, 1]);
    let pair = cluster
        .pki
        .issue_serving("system:node:n1", &["n1".into()], &[ip])
        .unwrap();
    let (chain, key) = parts(&pair);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(cluster), provider())
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, heads) = mpsc::unbounded_channel();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.clone().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            tasks.spawn(answer(stream, seen.clone()));
        }
    });
    (port, heads)
}

async fn answer(
    mut stream: tokio_rustls::server::TlsStream<TcpStream>,
    seen: mpsc::UnboundedSender<String>,
) {
    let head = read_head(&mut stream).await;
    let is_post = head.starts_with("POST");
    seen.send(head).unwrap();
    if is_post {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..count]).await.unwrap();
        }
    } else {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nline\n";
        stream.write_all(answer).await.unwrap();
    }
    let _ = stream.shutdown().await;
}

async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A TLS connection to the server as `identity`.
async fn connect(cluster: &Cluster, identity: &Identity) -> TlsStream<TcpStream> {
    let (chain, key) = parts(&cluster.pki.issue_client(identity).unwrap());
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(cluster))
        .with_client_auth_cert(chain, key)
        .unwrap();
    let stream = TcpStream::connect(cluster.address).await.unwrap();
    let name = ServerName::IpAddress(cluster.address.ip().into());
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

/// Sends the head of an upgrade request; the head of the answer.
async fn upgrade(stream: &mut TlsStream<TcpStream>, line: &str, protocol: &str) -> String {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_head(stream).await
}

const EXEC: &str = "/api/v1/namespaces/default/pods/one/exec?command=sh&command=-c%20x&stdin=true&stdout=true&container=c";

async fn place_pod(cluster: &Cluster) -> mpsc::UnboundedReceiver<String> {
    cluster.apply(OBJECTS);
    let (port, heads) = kubelet(cluster).await;
    let status = format!(
        r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.1"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":{port}}}}}}}}}"#
    );
    cluster.ok(&[
        "patch",
        "node",
        "n1",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ]);
    let binding = r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"one"},"target":{"kind":"Node","name":"n1"}}"#;
    let path = "/api/v1/namespaces/default/pods/one/binding";
    let bind = ["create", "--raw", path, "-f", "-"];
    let printed = cluster.with_input(&bind, binding);
    assert_eq!(printed.code, 0, "{}", printed.err);
    let again = cluster.with_input(&bind, binding);
    assert!(
        again
            .err
            .contains(r#"pod one is already assigned to node "n1""#),
        "{}",
        again.err
    );
    heads
}

#[tokio::test(flavor = "multi_thread")]
async fn upgraded_bytes_cross_both_ways() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    let mut heads = place_pod(&cluster).await;
    let mut stream = connect(&cluster, &Identity::Admin).await;
    let head = upgrade(&mut stream, &format!("POST {EXEC}"), "SPDY/3.1").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        head.to_lowercase()
            .contains("x-stream-protocol-version: v4.channel.k8s.io")
    );
    stream.write_all(b"\x80\x03\x00\x01ping").await.unwrap();
    let mut echo = [0; 8];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"\x80\x03\x00\x01ping");
    let seen = heads.recv().await.unwrap();
    let line = "POST /exec/default/one/c?input=1&output=1&command=sh&command=-c+x HTTP/1.1";
    assert!(seen.starts_with(line), "{seen}");
    assert_eq!(cluster.ok(&["logs", "one"]), "line\n");
    let seen = heads.recv().await.unwrap();
    assert!(
        seen.starts_with("GET /containerLogs/default/one/c?"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_need_the_right_to_create_and_websockets_are_refused() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    let mut heads = place_pod(&cluster).await;
    let cases = [
        (Identity::Admin, "GET", "websocket", "HTTP/1.1 400"),
        (Identity::Scheduler, "POST", "SPDY/3.1", "HTTP/1.1 403"),
        (Identity::Scheduler, "GET", "websocket", "HTTP/1.1 403"),
        (
            Identity::Node("n1".into()),
            "POST",
            "SPDY/3.1",
            "HTTP/1.1 403",
        ),
    ];
    for (identity, method, protocol, expected) in cases {
        let mut stream = connect(&cluster, &identity).await;
        let head = upgrade(&mut stream, &format!("{method} {EXEC}"), protocol).await;
        assert!(head.starts_with(expected), "{identity:?} {method}: {head}");
    }
    assert!(
        heads.try_recv().is_err(),
        "nothing may have reached the kubelet"
    );
}
