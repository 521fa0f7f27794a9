//! Paths that are no resources: version, health, discovery, OpenAPI, token keys.

use std::sync::Arc;

use berth_api::{
    discovery, openapi,
    status::{self, Status},
};
use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use serde_json::json;

use crate::{
    request::Attributes,
    response::{self, Body},
    server::Api,
    token::ISSUER,
};

/// The Kubernetes version whose API this is.
const MINOR: &str = "36";
/// `gitVersion`: the version behaved as, and who behaves.
const GIT_VERSION: &str = concat!("v1.36.3+berth", env!("CARGO_PKG_VERSION"));
/// What `/openapi/v2` is in protobuf. Clients ask for it with `@v1.0`, which is no valid media
/// type to answer with.
const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a request whose path names no resource.
pub async fn answer(
    request: &Request<Incoming>,
    attributes: &Attributes,
    api: &Arc<Api>,
) -> Result<Response<Body>, Status> {
    if !matches!(attributes.verb, "get" | "head") {
        return Err(status::method_not_allowed_generic());
    }
    let path = attributes.path.trim_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["version"] => Ok(response::json(200, &version())),
        ["livez" | "healthz" | "readyz", check @ ..] => health(check, request, api).await,
        ["api"] if wants_aggregated(request.headers()) => Ok(aggregated(true)),
        ["apis"] if wants_aggregated(request.headers()) => Ok(aggregated(false)),
        ["api"] => {
            let document = discovery::api_versions(&advertised(api));
            Ok(response::json(200, &document))
        }
        ["apis"] => Ok(response::json(200, &discovery::group_list())),
        ["apis", group] => found(discovery::group(group)),
        ["api", version] => found(discovery::resource_list("", version)),
        ["apis", group, version] => found(discovery::resource_list(group, version)),
        ["openapi", "v2"] => Ok(openapi_v2(request.headers())),
        ["openapi", "v3"] => {
            let index = openapi::v3_index();
            Ok(response::bytes(200, "application/json", index))
        }
        ["openapi", "v3", rest @ ..] => openapi_v3(&rest.join("/")),
        ["metrics"] => Ok(response::bytes(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            api.metrics.render(),
        )),
        [".well-known", "openid-configuration"] => Ok(response::json(200, &issuer(api))),
        ["openid", "v1", "jwks"] => Ok(response::json(200, &api.tokens.key_set())),
        [""] => Ok(response::json(200, &paths())),
        _ => Err(status::path_not_found()),
    }
}

fn found(document: Option<serde_json::Value>) -> Result<Response<Body>, Status> {
    let document = document.ok_or_else(status::path_not_found)?;
    Ok(response::json(200, &document))
}

fn advertised(api: &Api) -> String {
    std::net::SocketAddr::new(api.config.advertise_address, api.address.port()).to_string()
}

fn version() -> serde_json::Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", go_arch()),
    })
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `livez`, `readyz`, `healthz`: ready means that the store answers.
async fn health(
    check: &[&str],
    request: &Request<Incoming>,
    api: &Api,
) -> Result<Response<Body>, Status> {
    let store = api.registry.revision().await.is_ok();
    let stopping = api.stop.is_cancelled();
    let checks = [("ping", true), ("store", store), ("shutdown", !stopping)];
    let asked: Vec<_> = checks
        .iter()
        .filter(|(name, _)| check.is_empty() || check == [*name])
        .collect();
    if asked.is_empty() {
        return Err(status::path_not_found());
    }
    let good = asked.iter().all(|(_, good)| *good);
    let verbose = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("verbose"));
    if good && !verbose {
        return Ok(response::text(200, "ok"));
    }
    let mut text = String::new();
    for (name, good) in asked {
        let line = if *good {
            format!("[+]{name} ok\n")
        } else {
            format!("[-]{name} failed\n")
        };
        text.push_str(&line);
    }
    let path = request.uri().path().trim_matches('/');
    let verdict = if good { "passed" } else { "failed" };
    text.push_str(&format!("{path} check {verdict}\n"));
    Ok(response::text(if good { 200 } else { 500 }, text))
}

fn accepts(headers: &HeaderMap, part: &str) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains(part))
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.unwrap_or_default().split(',').any(|range| {
        range.contains("g=apidiscovery.k8s.io")
            && range.contains("v=v2;")
            && range.contains("as=APIGroupDiscoveryList")
    })
}

fn aggregated(core: bool) -> Response<Body> {
    response::bytes(
        200,
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        discovery::aggregated(core).to_string(),
    )
}

fn openapi_v2(headers: &HeaderMap) -> Response<Body> {
    if accepts(headers, "proto-openapi.spec.v2") {
        response::bytes(200, OPENAPI_PROTOBUF, openapi::v2_protobuf())
    } else {
        response::bytes(200, "application/json", openapi::v2_json())
    }
}

fn openapi_v3(path: &str) -> Result<Response<Body>, Status> {
    let document = openapi::v3(path).ok_or_else(status::path_not_found)?;
    Ok(response::bytes(200, "application/json", document))
}

fn issuer(api: &Api) -> serde_json::Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("https://{}/openid/v1/jwks", advertised(api)),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn paths() -> serde_json::Value {
    json!({ "paths": [
        "/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/healthz", "/livez",
        "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version",
    ] })
}
