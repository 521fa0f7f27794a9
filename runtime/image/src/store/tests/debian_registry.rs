//! The same against a registry that others wrote: Debian's `docker-registry`.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rustls::RootCertStore;

use super::two_layers;
use crate::Digest;
use crate::registry::hosts;
use crate::registry::transport::{self, HttpClient, Resolver};
use crate::testing::image::{INDEX, MANIFEST, TestImage};
use crate::testing::{TestStore, is_root};

const BINARY: &str = "/usr/bin/docker-registry";
const ATTEMPTS: u32 = 100;

/// A running registry with its files in a directory of its own.
struct Server {
    child: Child,
    host: String,
    http: HttpClient,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    async fn start() -> Option<Self> {
        if std::fs::metadata(BINARY).is_err() {
            println!("skipped: {BINARY} is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let mut config = std::fs::File::create(dir.path().join("config.yml")).unwrap();
        let root = dir.path().join("data");
        write!(
            config,
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            root.display()
        )
        .unwrap();
        let child = Command::new(BINARY)
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let endpoint = hosts::endpoints(std::path::Path::new("/nonexistent"), &host)
            .unwrap()
            .remove(0);
        let http = transport::client(
            &endpoint,
            Resolver::from_system().unwrap(),
            &RootCertStore::empty(),
        );
        let server = Self {
            child,
            host,
            http: http.unwrap(),
            _dir: dir,
        };
        for _ in 0..ATTEMPTS {
            if server
                .request(Method::GET, "/v2/", "", Vec::new())
                .await
                .is_some()
            {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the registry does not answer");
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Option<Response<Incoming>> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("http://{}{path}", self.host)
        };
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.http.request(request).await.ok()
    }

    async fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.blobs.iter().chain([&image.config]) {
            let path = format!("/v2/{repository}/blobs/uploads/");
            let opened = self
                .request(Method::POST, &path, "", Vec::new())
                .await
                .unwrap();
            let location = opened.headers()[header::LOCATION]
                .to_str()
                .unwrap()
                .to_owned();
            let place = format!("{location}&digest={}", Digest::of(blob));
            let stored = self
                .request(
                    Method::PUT,
                    &place,
                    "application/octet-stream",
                    blob.clone(),
                )
                .await;
            assert_eq!(stored.unwrap().status(), StatusCode::CREATED);
        }
        let manifest = Digest::of(&image.manifest).to_string();
        for (name, kind, bytes) in [
            (&manifest[..], MANIFEST, &image.manifest),
            (tag, INDEX, &image.index),
        ] {
            let path = format!("/v2/{repository}/manifests/{name}");
            let stored = self
                .request(Method::PUT, &path, kind, bytes.clone())
                .await
                .unwrap();
            let status = stored.status();
            let body = stored.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(status, StatusCode::CREATED, "{body:?}");
        }
    }
}

#[tokio::test]
async fn root_a_real_registry_serves_what_was_pushed() {
    if !is_root() {
        return;
    }
    let Some(server) = Server::start().await else {
        return;
    };
    let image = two_layers();
    server.push("team/app", "v1", &image).await;
    let store = TestStore::new();
    let pulled = store
        .pull(&format!("{}/team/app:v1", server.host))
        .await
        .unwrap();
    assert_eq!(pulled.id, image.id());
    let by_digest = store.pull(&pulled.repo_digests[0]).await.unwrap();
    assert_eq!(by_digest.id, image.id());
    let error = store
        .pull(&format!("{}/team/app:v2", server.host))
        .await
        .unwrap_err();
    assert!(
        error.to_string().ends_with("manifest unknown: not found"),
        "{error}"
    );
    let error = store
        .pull(&format!("{}/nobody/none", server.host))
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
}
