//! An HTTP(S) GET as probes and hooks do it: certificates unverified, redirects followed
//! on the same host only, at most 10 KiB of the answer read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use tokio::net::TcpStream;

use super::unverified;

/// Most of an answer that is read, bytes.
const MAX_BODY: usize = 10 * 1024;
/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// What an HTTP endpoint answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer in time.
    #[error(
        "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    )]
    Timeout { url: String },
    /// The connection could not be made.
    #[error("Get \"{url}\": dial tcp {address}: {reason}")]
    Connect {
        url: String,
        address: String,
        reason: String,
    },
    /// The exchange failed on the way.
    #[error("Get \"{url}\": {reason}")]
    Exchange { url: String, reason: String },
}

/// Where to and with which headers.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http` or `https`.
    pub scheme: String,
    /// Host or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Headers beyond the usual.
    pub headers: Vec<(String, String)>,
}

impl Target {
    /// The target of an `httpGet` on a container whose named ports resolve by `port`.
    #[must_use]
    pub fn new(get: &HTTPGetAction, pod_ip: &str, port: u16) -> Target {
        let path = get.path.clone().unwrap_or_default();
        Target {
            scheme: get.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            host: get.host.clone().unwrap_or_else(|| pod_ip.to_owned()),
            port,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            headers: get
                .http_headers
                .iter()
                .flatten()
                .map(|h| (h.name.clone(), h.value.clone()))
                .collect(),
        }
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.path)
    }
}

/// Gets `target` within `limit`.
///
/// # Errors
/// When no answer comes back.
pub async fn get(target: &Target, limit: Duration) -> Result<Answer, HttpError> {
    match tokio::time::timeout(limit, follow(target)).await {
        Ok(result) => result,
        Err(_) => Err(HttpError::Timeout { url: target.url() }),
    }
}

async fn follow(target: &Target) -> Result<Answer, HttpError> {
    let mut target = target.clone();
    for _ in 0..MAX_REDIRECTS {
        let (answer, location) = once(&target).await?;
        let Some(location) = location.filter(|_| (300..400).contains(&answer.status)) else {
            return Ok(answer);
        };
        match redirected(&target, &location) {
            Some(next) => target = next,
            // Another host is not ours to visit: the redirect itself is a success.
            None => return Ok(answer),
        }
    }
    Err(HttpError::Exchange {
        url: target.url(),
        reason: format!("stopped after {MAX_REDIRECTS} redirects"),
    })
}

fn redirected(from: &Target, location: &str) -> Option<Target> {
    let uri: Uri = location.parse().ok()?;
    let mut next = from.clone();
    if let Some(host) = uri.host() {
        if host != from.host {
            return None;
        }
        next.scheme = uri.scheme_str().unwrap_or(&from.scheme).to_owned();
        let usual = if next.scheme == "https" { 443 } else { 80 };
        next.port = uri.port_u16().unwrap_or(usual);
    }
    next.path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    Some(next)
}

async fn once(target: &Target) -> Result<(Answer, Option<String>), HttpError> {
    let url = target.url();
    let exchange = |reason: String| HttpError::Exchange {
        url: url.clone(),
        reason,
    };
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|error| HttpError::Connect {
            url: url.clone(),
            address: target.authority(),
            reason: format!("connect: {}", plain(&error)),
        })?;
    if target.scheme == "https" {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(unverified::client_config()));
        let name = rustls_pki_types::ServerName::try_from(target.host.clone())
            .map_err(|error| exchange(error.to_string()))?;
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| exchange(error.to_string()))?;
        return send(target, TokioIo::new(stream)).await.map_err(exchange);
    }
    send(target, TokioIo::new(stream)).await.map_err(exchange)
}

async fn send<T>(target: &Target, io: T) -> Result<(Answer, Option<String>), String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::get(&target.path);
    let has = |name: &str| {
        target
            .headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name))
    };
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    if !has("host") {
        request = request.header("host", target.authority());
    }
    if !has("user-agent") {
        request = request.header("user-agent", "kube-probe/1.36");
    }
    if !has("accept") {
        request = request.header("accept", "*/*");
    }
    let request = request
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get("location");
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        // A body beyond the limit is cut, not an error.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map(|b| b.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok((Answer { status, body }, location))
    };
    tokio::select! {
        answer = exchange => answer,
        // The connection must be driven for the exchange to proceed; it ends after it.
        Err(error) = connection => Err(error.to_string()),
    }
}

/// An I/O error without the number behind it.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn serve(answers: &'static [&'static str]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 2048];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        tasks.detach_all();
        Target {
            scheme: "http".into(),
            host: "127.0.0.1".into(),
            port,
            path: "/x".into(),
            headers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_answer_comes_back_with_its_code() {
        let target = serve(&["HTTP/1.1 503 no\r\nContent-Length: 4\r\n\r\nbusy"]).await;
        let answer = get(&target, Duration::from_secs(5)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "busy"));
    }

    #[tokio::test]
    async fn redirects_stay_on_the_host() {
        let target = serve(&[
            "HTTP/1.1 302 f\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 301 f\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        let answer = get(&target, Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.status, 301);
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut target = serve(&[]).await;
        target.port = port;
        let error = get(&target, Duration::from_secs(5)).await.unwrap_err();
        let expected = format!(
            "Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        );
        assert_eq!(error.to_string(), expected);
    }
}
