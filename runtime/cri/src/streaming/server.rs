//! The HTTP server whose connections become SPDY connections.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::sessions::Session;
use super::spdy::Connection;
use super::{attach, exec, port_forward};
use crate::server::Server;

/// The upgrade Kubernetes clients ask for.
const SPDY: &str = "SPDY/3.1";
/// Names a protocol in the request, and the chosen one in the answer.
const PROTOCOL_HEADER: &str = "x-stream-protocol-version";
/// Names what would have been accepted.
const ACCEPTED_HEADER: &str = "x-accepted-stream-protocol-versions";
/// Exec and attach, with a JSON status on the error stream.
const REMOTE_COMMAND: &str = "v4.channel.k8s.io";
/// Port-forward, a data and an error stream for each connection.
const PORT_FORWARD: &str = "portforward.k8s.io";

/// Serves streams on `listener` until the server ends.
pub async fn serve(server: Arc<Server>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.ending.cancelled() => return,
        };
        let Ok((socket, _)) = accepted else {
            // Out of descriptors: the next to be closed makes room.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        // Keystrokes must not wait for one another.
        let _ = socket.set_nodelay(true);
        let connection_server = server.clone();
        server.tasks.spawn(async move {
            let ending = connection_server.ending.clone();
            let service = service_fn(move |request| answer(connection_server.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            // A client that breaks off has no use for an answer.
            tokio::select! {
                _ = connection => {}
                () = ending.cancelled() => {}
            }
        });
    }
}

async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let Some(session) = server.streams.take(request.uri().path()) else {
        return Ok(refuse(
            StatusCode::NOT_FOUND,
            "no such session, or it was used before",
        ));
    };
    if !asks_for_spdy(request.headers()) {
        let text = "the request must ask for `Connection: Upgrade` and `Upgrade: SPDY/3.1`";
        return Ok(refuse(StatusCode::BAD_REQUEST, text));
    }
    let protocol = match session {
        Session::Exec { .. } | Session::Attach { .. } => REMOTE_COMMAND,
        Session::PortForward { .. } => PORT_FORWARD,
    };
    if !offers(request.headers(), protocol) {
        let mut response = refuse(StatusCode::FORBIDDEN, "no common stream protocol version");
        response
            .headers_mut()
            .insert(ACCEPTED_HEADER, HeaderValue::from_static(protocol));
        return Ok(response);
    }
    let (task_server, ending) = (server.clone(), server.ending.clone());
    let upgrade = hyper::upgrade::on(request);
    server.tasks.spawn(async move {
        tokio::select! {
            upgraded = upgrade => match upgraded {
                Ok(upgraded) => run(task_server, session, upgraded).await,
                Err(error) => tracing::debug!(%error, "a stream was not upgraded"),
            },
            () = ending.cancelled() => {}
        }
    });
    Ok(switch(protocol))
}

async fn run(server: Arc<Server>, session: Session, upgraded: Upgraded) {
    let connection = match Connection::serve(TokioIo::new(upgraded), &server.tasks) {
        Ok(connection) => connection,
        Err(error) => {
            tracing::error!(error = %crate::status::chain(&error), "cannot serve a stream");
            return;
        }
    };
    let ending = server.ending.clone();
    let serving = async move {
        match session {
            Session::Exec {
                container,
                command,
                streams,
            } => {
                exec::serve(server, connection, container, command, streams).await;
            }
            Session::Attach { container, streams } => {
                attach::serve(server, connection, container, streams).await;
            }
            Session::PortForward { sandbox } => {
                port_forward::serve(server, connection, sandbox).await;
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = ending.cancelled() => {}
    }
}

fn asks_for_spdy(headers: &HeaderMap) -> bool {
    let lists = |name, wanted: &str| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    lists(header::CONNECTION, "upgrade") && lists(header::UPGRADE, SPDY)
}

/// A client that names no protocol at all means the first there ever was, which for
/// port-forward is the same one.
fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    let values = headers.get_all(PROTOCOL_HEADER);
    let mut words = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .peekable();
    if words.peek().is_none() {
        return protocol == PORT_FORWARD;
    }
    words.any(|word| word == protocol)
}

fn switch(protocol: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(protocol));
    response
}

fn refuse(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_upgrade_is_asked_for_in_both_headers() {
        let asked = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "spdy/3.1"),
        ];
        assert!(asks_for_spdy(&headers(&asked)));
        assert!(!asks_for_spdy(&headers(&asked[..1])));
        assert!(!asks_for_spdy(&headers(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket")
        ])));
    }

    #[test]
    fn the_protocol_must_be_among_those_offered() {
        let many = headers(&[
            (PROTOCOL_HEADER, "v5.channel.k8s.io"),
            (PROTOCOL_HEADER, "v4.channel.k8s.io"),
        ]);
        assert!(offers(&many, REMOTE_COMMAND));
        assert!(!offers(
            &headers(&[(PROTOCOL_HEADER, "channel.k8s.io")]),
            REMOTE_COMMAND
        ));
        assert!(!offers(&headers(&[]), REMOTE_COMMAND));
        assert!(offers(&headers(&[]), PORT_FORWARD));
    }
}
