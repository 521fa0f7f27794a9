//! One upgraded connection passed on to the CRI server's streaming endpoint.
//!
//! ```text
//! client ──upgrade──▶ here ──the same upgrade, to the one-time URL──▶ CRI server
//! client ◀───101───── here ◀───101─────────────────────────────────── CRI server
//! client ◀═══bytes, unread, both ways═══════════════════════════════▶ CRI server
//! ```

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

use super::reply::{self, Refusal, Reply};
use super::serve::Tasks;

/// Time the streaming endpoint may take to accept and to answer.
const CONNECT: Duration = Duration::from_secs(10);
/// Largest error text taken from the streaming endpoint, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// Refuses what cannot become a stream. Clients that try a WebSocket first fall back to
/// SPDY on any answer but 101.
pub fn check_upgrade(headers: &HeaderMap) -> Result<(), Refusal> {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok());
    let Some(upgrade) = upgrade else {
        return Err(Refusal::bad_request("Upgrade request required"));
    };
    if upgrade.eq_ignore_ascii_case("websocket") {
        let text = "the WebSocket protocol is not served here: upgrade to SPDY/3.1";
        return Err(Refusal::bad_request(text));
    }
    Ok(())
}

/// Sends the request on to `url` and joins the two connections once it is upgraded.
pub async fn tunnel(
    request: Request<Incoming>,
    url: &str,
    tasks: &Tasks,
) -> Result<Reply, Refusal> {
    let failed = |what: &str| Refusal::internal(format!("cannot reach the stream of CRI: {what}"));
    let url = Url::parse(url).map_err(|error| failed(&error.to_string()))?;
    let onward = onward(&request, &url)?;
    let answer = match tokio::time::timeout(CONNECT, dial(&url, onward, tasks)).await {
        Ok(answer) => answer.map_err(|error| failed(&crate::chain::chain(&error)))?,
        Err(_) => return Err(failed("no answer in time")),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return relay_failure(answer).await;
    }
    let mut reply = Response::new(reply::whole(Bytes::new()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = answer.headers().clone();
    tasks.spawn(async move {
        if let Err(error) = join(request, answer).await {
            tracing::debug!(%error, "a stream into a pod ended");
        }
    });
    Ok(reply)
}

/// The same request for the one-time URL. Credentials of the client stay here.
fn onward(request: &Request<Incoming>, url: &Url) -> Result<Request<Empty<Bytes>>, Refusal> {
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut onward = Request::builder()
        .method(request.method().clone())
        .uri(target)
        .body(Empty::new())
        .map_err(|error| Refusal::internal(error.to_string()))?;
    let host = url.authority().parse();
    for (name, value) in request.headers() {
        let kept = [header::HOST, header::AUTHORIZATION, header::COOKIE];
        let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        if !kept.contains(name) && !framing.contains(name) {
            onward.headers_mut().append(name, value.clone());
        }
    }
    let host = host.map_err(|_| Refusal::internal("the URL of CRI names no host"))?;
    onward.headers_mut().insert(header::HOST, host);
    Ok(onward)
}

/// Why the streaming endpoint did not answer.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("`{0}` is not an http URL of an address and a port")]
    Url(String),
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("no answer from {0}")]
    Answer(String, #[source] hyper::Error),
}

async fn dial(
    url: &Url,
    request: Request<Empty<Bytes>>,
    tasks: &Tasks,
) -> Result<Response<Incoming>, DialError> {
    let host = url.host_str().filter(|_| url.scheme() == "http");
    let (Some(host), Some(port)) = (host, url.port_or_known_default()) else {
        return Err(DialError::Url(url.to_string()));
    };
    let at = format!("{host}:{port}");
    let stream = TcpStream::connect(&at)
        .await
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|error| DialError::Connect(at.clone(), error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| DialError::Answer(at.clone(), error))?;
    tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the stream of CRI ended");
        }
    });
    let answer = sender.send_request(request).await;
    answer.map_err(|error| DialError::Answer(at, error))
}

async fn relay_failure(answer: Response<Incoming>) -> Result<Reply, Refusal> {
    let code = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ERROR).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    if code.is_success() || code.is_informational() {
        return Err(Refusal::internal(format!(
            "the stream of CRI answered {code} to an upgrade"
        )));
    }
    Ok(reply::text(code, body))
}

async fn join(request: Request<Incoming>, answer: Response<Incoming>) -> std::io::Result<()> {
    let (client, server) =
        tokio::try_join!(hyper::upgrade::on(request), hyper::upgrade::on(answer))
            .map_err(std::io::Error::other)?;
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
