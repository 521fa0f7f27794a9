//! A read-only registry on loopback with one image (OCI distribution specification,
//! pull part).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A running registry; dropping it ends it.
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Documents = HashMap<String, (&'static str, Bytes)>;

impl Registry {
    /// Serves `layer`, an uncompressed tar, as the image `test/shell:latest` with the
    /// configuration `config`.
    ///
    /// # Errors
    /// No port, or the layer cannot be compressed.
    pub async fn serve(layer: &[u8], config: Value) -> Result<Registry> {
        let documents = Arc::new(documents(layer, config)?);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "aborted when the registry is dropped"
        )]
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let documents = documents.clone();
                let service = service_fn(move |request| answer(documents.clone(), request));
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Ok(Registry { address, task })
    }

    /// The name of the image.
    pub fn image(&self) -> String {
        format!("{}/test/shell:latest", self.address)
    }
}

fn documents(layer: &[u8], mut config: Value) -> Result<Documents> {
    let compressed = gzip(layer)?;
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [digest(layer)] });
    let config = Bytes::from(config.to_string());
    let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &compressed)],
    });
    let manifest = Bytes::from(manifest.to_string());
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    let index = Bytes::from(index.to_string());
    let blob = "application/octet-stream";
    Ok(HashMap::from([
        (digest(&config), (blob, config)),
        (digest(&compressed), (blob, compressed)),
        (digest(&manifest), (MANIFEST, manifest)),
        (digest(&index), (INDEX, index.clone())),
        ("latest".to_owned(), (INDEX, index)),
    ]))
}

fn gzip(bytes: &[u8]) -> Result<Bytes> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The architecture of this machine in the words of images.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn answer(
    documents: Arc<Documents>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut response = Response::new(Full::default());
    if path == "/v2/" {
        return Ok(response);
    }
    let Some((kind, bytes)) = documents.get(name) else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        let code = if path.contains("/manifests/") {
            "MANIFEST_UNKNOWN"
        } else {
            "BLOB_UNKNOWN"
        };
        let errors = json!({ "errors": [{ "code": code, "message": "no such thing here" }] });
        *response.body_mut() = Full::new(errors.to_string().into());
        return Ok(response);
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    if let Ok(value) = digest(bytes).parse() {
        headers.insert("docker-content-digest", value);
    }
    if request.method() != http::Method::HEAD {
        *response.body_mut() = Full::new(bytes.clone());
    }
    Ok(response)
}
