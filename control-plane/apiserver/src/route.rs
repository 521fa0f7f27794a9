//! From a request to the handler of its verb.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use berth_api::{
    gvk::{Resource, Subresource},
    status::{self, Status},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::{
    authn::{self, User},
    authz, encoding,
    handler::{self, Call},
    protobuf,
    request::{Attributes, Query},
    response::{self, Body},
    server::Api,
    system,
};

/// Largest body that is read (stock: 3 MiB).
const MAX_BODY: usize = 3 << 20;

/// Answers a request; a failure becomes its Status.
pub async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    certificate: Option<&User>,
    api: &Arc<Api>,
) -> Response<Body> {
    let began = Instant::now();
    let method = request.method().clone();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let attributes = Attributes::of(&method, request.uri().path(), &query);
    let accepts_gzip = encoding::accepts_gzip(request.headers());
    let line = (attributes.clone(), query);
    let mut response = match dispatch(request, line, certificate, api).await {
        Ok(response) => response,
        Err(failure) => response::status(&failure),
    };
    if accepts_gzip {
        response = encoding::compress(response);
    }
    let code = response.status().as_u16();
    api.metrics.count(&attributes, code, began.elapsed());
    tracing::debug!(%peer, %method, path = attributes.path, code, "request");
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

async fn dispatch(
    request: Request<Incoming>,
    (mut attributes, query): (Attributes, Query),
    certificate: Option<&User>,
    api: &Arc<Api>,
) -> Result<Response<Body>, Status> {
    if matches!(
        attributes.subresource.as_str(),
        "exec" | "attach" | "portforward"
    ) {
        // A stream into a pod needs `create`, also when it is opened by GET (WebSocket).
        attributes.verb = "create";
    }
    let user =
        authn::authenticate(request.headers(), certificate, &api.tokens, &api.registry).await?;
    let user = act_as(user, request.headers(), api).await?;
    authz::authorize(&user, &attributes, &query, &api.registry).await?;
    if !attributes.is_resource {
        return system::answer(&request, &attributes, api).await;
    }
    let resource = attributes.served().ok_or_else(status::path_not_found)?;
    let subresource = served_verb(resource, &attributes)?;
    let (parts, body) = request.into_parts();
    let mut call = Call {
        api: Arc::clone(api),
        resource,
        attributes,
        query,
        headers: parts.headers.clone(),
        user,
        body: Bytes::new(),
    };
    if handler::is_stream(&call) {
        return handler::stream(&call, Request::from_parts(parts, body)).await;
    }
    call.body = read_body(body).await?;
    if call.content_type().starts_with(protobuf::MEDIA_TYPE) {
        let object =
            protobuf::decode(&call.body).map_err(|error| status::bad_request(error.to_string()))?;
        call.body = object.to_string().into();
        let json = HeaderValue::from_static("application/json");
        call.headers.insert(header::CONTENT_TYPE, json);
    }
    match subresource {
        Some(subresource) => handler::subresource(&call, subresource).await,
        None => handler::resource(&call).await,
    }
}

/// The user to act as; acting as another one is a right of its own.
async fn act_as(user: User, headers: &HeaderMap, api: &Api) -> Result<User, Status> {
    let Some(other) = authn::impersonated(headers)? else {
        return Ok(user);
    };
    let attributes = Attributes {
        verb: "impersonate",
        is_resource: true,
        resource: "users".to_owned(),
        name: other.name.clone(),
        ..Attributes::default()
    };
    authz::authorize(&user, &attributes, &Query::default(), &api.registry).await?;
    Ok(other)
}

/// Refuses verbs and subresources which the resource does not have.
fn served_verb(
    resource: &'static Resource,
    attributes: &Attributes,
) -> Result<Option<&'static Subresource>, Status> {
    if attributes.subresource.is_empty() {
        if resource.has_verb(attributes.verb) {
            return Ok(None);
        }
        return Err(status::method_not_allowed_generic());
    }
    let subresource = resource
        .subresource(&attributes.subresource)
        .ok_or_else(status::path_not_found)?;
    if !subresource.verbs.contains(&attributes.verb) {
        return Err(status::method_not_allowed_generic());
    }
    Ok(Some(subresource))
}

async fn read_body(body: Incoming) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(status::request_too_large(MAX_BODY)),
        Err(error) => Err(status::bad_request(format!(
            "unable to read the request's body: {error}"
        ))),
    }
}
