//! `pods/log`, `exec`, `attach` and `portforward`: streams that the pod's kubelet serves. The
//! request was authorized here; the kubelet sees only the API server's identity. Upgraded
//! bytes are passed on unchanged.

use berth_api::status::{self, Status};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Call;
use crate::response::{self, Body};

/// Largest error text that is read from a kubelet.
const MAX_ERROR: usize = 64 * 1024;
/// Headers of an upgrade that cross the proxy, both ways.
const UPGRADE_HEADERS: [HeaderName; 3] = [
    header::CONNECTION,
    header::UPGRADE,
    HeaderName::from_static("x-stream-protocol-version"),
];
/// Query parameters of a log request that the kubelet understands.
const LOG_PARAMETERS: [&str; 8] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];

/// Whether a call is for one of these streams.
pub fn is_stream(call: &Call) -> bool {
    call.resource.group.is_empty()
        && call.resource.plural == "pods"
        && matches!(
            call.attributes.subresource.as_str(),
            "log" | "exec" | "attach" | "portforward"
        )
}

/// Passes the request to the pod's kubelet.
pub async fn answer(call: &Call, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let pod = call.api.registry.get(&call.target()).await?;
    if call.attributes.subresource == "log" {
        return log(call, &pod).await;
    }
    let upgrade = request.headers().get(header::UPGRADE);
    let upgrade = upgrade
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if upgrade.is_empty() {
        return Err(status::bad_request("Upgrade request required"));
    }
    if upgrade.eq_ignore_ascii_case("websocket") {
        // kubectl falls back to SPDY on any answer but 101.
        return Err(status::bad_request(
            "the WebSocket protocol is not served: upgrade to SPDY/3.1",
        ));
    }
    let node = node_of(&pod).ok_or_else(|| {
        status::bad_request(format!(
            "pod {} does not have a host assigned",
            call.attributes.name
        ))
    })?;
    let path = stream_path(call, &pod)?;
    let mut out = kubelet_request(request.method().clone(), &path)?;
    copy_upgrade(request.headers(), out.headers_mut());
    let api = &call.api;
    let answer = api.kubelets.send(&api.registry, &api.tasks, node, out);
    tunnel(call, request, answer.await?).await
}

fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty())
}

fn kubelet_request(method: http::Method, path: &str) -> Result<Request<Full<Bytes>>, Status> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "kubelet")
        .body(Full::default())
        .map_err(|error| status::bad_request(error.to_string()))
}

fn copy_upgrade(from: &HeaderMap, to: &mut HeaderMap) {
    for name in UPGRADE_HEADERS {
        for value in from.get_all(&name) {
            to.append(&name, value.clone());
        }
    }
}

fn query(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// The kubelet's path for exec, attach and port-forward, with its own parameter names.
fn stream_path(call: &Call, pod: &Value) -> Result<String, Status> {
    let (namespace, name) = (call.namespace(), call.attributes.name.as_str());
    if call.attributes.subresource == "portforward" {
        return Ok(format!("/portForward/{namespace}/{name}"));
    }
    let container = container_of(call, pod)?;
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let flags = [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ];
    for (ours, theirs) in flags {
        if call.query.flag(ours) {
            pairs.push((theirs, "1"));
        }
    }
    let verb = call.attributes.subresource.as_str();
    if verb == "exec" {
        pairs.extend(call.query.all("command").map(|word| ("command", word)));
        if call.query.get("command").is_none() {
            return Err(status::bad_request(
                "you must specify at least 1 command for the container",
            ));
        }
    }
    let query = query(&pairs);
    Ok(format!("/{verb}/{namespace}/{name}/{container}?{query}"))
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    let containers = pod["spec"][list].as_array().into_iter().flatten();
    containers
        .filter_map(|container| container["name"].as_str())
        .collect()
}

/// The container asked for, or the only one.
fn container_of<'a>(call: &'a Call, pod: &'a Value) -> Result<&'a str, Status> {
    let pod_name = &call.attributes.name;
    let (mut known, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let asked = call.query.text("container");
    if asked.is_empty() {
        if let [only] = known.as_slice() {
            return Ok(only);
        }
        let mut text = format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            known.join(" ")
        );
        if !init.is_empty() {
            text.push_str(&format!(
                " or one of the init containers: [{}]",
                init.join(" ")
            ));
        }
        return Err(status::bad_request(text));
    }
    known.extend(init);
    known.extend(names(pod, "ephemeralContainers"));
    if known.contains(&asked) {
        return Ok(asked);
    }
    Err(status::bad_request(format!(
        "container {asked} is not valid for pod {pod_name}"
    )))
}

async fn log(call: &Call, pod: &Value) -> Result<Response<Body>, Status> {
    let container = container_of(call, pod)?;
    let Some(node) = node_of(pod) else {
        return Ok(response::text(200, ""));
    };
    let present = LOG_PARAMETERS
        .iter()
        .filter_map(|name| Some((*name, call.query.get(name)?)));
    let query = query(&present.collect::<Vec<_>>());
    let path = format!(
        "/containerLogs/{}/{}/{container}?{query}",
        call.namespace(),
        call.attributes.name
    );
    let request = kubelet_request(http::Method::GET, &path)?;
    let api = &call.api;
    let answer = api.kubelets.send(&api.registry, &api.tasks, node, request);
    let answer = answer.await?;
    if answer.status() != StatusCode::OK {
        return Err(failure(answer).await);
    }
    let stop = api.stop.clone();
    let frames = BodyStream::new(answer.into_body())
        .take_until(stop.cancelled_owned())
        .filter_map(async |frame| frame.ok()?.into_data().ok());
    let mut response = Response::new(response::stream(frames));
    let value = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    Ok(response)
}

/// A kubelet's failure as the client sees it: the kubelet's own words.
async fn failure(answer: Response<Incoming>) -> Status {
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_ERROR).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).trim_end().to_owned();
    match code {
        400 => status::bad_request(text),
        404 => {
            let mut status = status::path_not_found();
            status.message = format!("{}: {text}", status.message);
            status
        }
        500 => status::internal(text),
        code => status::internal(format!("the kubelet answered {code}: {text}")),
    }
}

/// Joins the two upgraded connections.
async fn tunnel(
    call: &Call,
    request: Request<Incoming>,
    answer: Response<Incoming>,
) -> Result<Response<Body>, Status> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(failure(answer).await);
    }
    let mut response = Response::new(response::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy_upgrade(answer.headers(), response.headers_mut());
    join(&call.api.tasks, call.api.stop.clone(), request, answer);
    Ok(response)
}

fn join(
    tasks: &TaskTracker,
    stop: CancellationToken,
    request: Request<Incoming>,
    answer: Response<Incoming>,
) {
    let copy = async move {
        let (client, kubelet) =
            tokio::try_join!(hyper::upgrade::on(request), hyper::upgrade::on(answer))
                .map_err(std::io::Error::other)?;
        let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
        tokio::io::copy_bidirectional(&mut client, &mut kubelet).await
    };
    tasks.spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(copy).await {
            tracing::debug!(%error, "a stream into a pod ended");
        }
    });
}
