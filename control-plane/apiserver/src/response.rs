//! Bodies, and answers in the forms a client accepts.

use std::convert::Infallible;

use berth_api::{gvk::Resource, status::Status, table};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The form in which objects are answered, from the `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object.
    Object,
    /// `as=Table;g=meta.k8s.io;v=v1`.
    Table,
    /// `as=PartialObjectMetadata` (or `…List`): only the metadata.
    Metadata,
}

/// Media types that can be produced, for the text of a 406.
const PRODUCED: [&str; 1] = ["application/json"];

impl Form {
    /// The first acceptable form.
    pub fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok());
        let Some(accept) = accept.filter(|text| !text.trim().is_empty()) else {
            return Ok(Self::Object);
        };
        accept
            .split(',')
            .find_map(Self::of_media_range)
            .ok_or_else(|| berth_api::status::not_acceptable(&PRODUCED))
    }

    fn of_media_range(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let mut form = Self::Object;
        for part in parts {
            match part.split_once('=') {
                Some(("as", "Table")) => form = Self::Table,
                Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    form = Self::Metadata;
                }
                Some(("as", _)) => return None,
                Some(("v", version)) if version != "v1" => return None,
                _ => {}
            }
        }
        Some(form)
    }

    /// One object in this form. `include` is the query parameter `includeObject`.
    pub fn render(self, resource: &Resource, object: Value, include: &str) -> Value {
        match self {
            Self::Object => object,
            Self::Metadata => partial_metadata(&object),
            Self::Table => {
                let version = &object["metadata"]["resourceVersion"];
                let metadata = json!({ "resourceVersion": version });
                self.render_table(resource, &[object], &metadata, include)
            }
        }
    }

    /// Objects as a Table.
    pub fn render_table(
        self,
        resource: &Resource,
        objects: &[Value],
        list_metadata: &Value,
        include: &str,
    ) -> Value {
        let include = table::Include::parse(include).unwrap_or_default();
        table::table(
            resource,
            objects,
            list_metadata,
            include,
            chrono::Utc::now(),
        )
    }
}

/// `PartialObjectMetadata` of an object.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// A body that is known as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that is sent chunk by chunk.
pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    let frames = chunks.map(|chunk| Ok(Frame::data(chunk)));
    StreamBody::new(frames).boxed_unsync()
}

/// An answer with a content type.
pub fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// A JSON answer.
pub fn json(code: u16, value: &Value) -> Response<Body> {
    bytes(code, "application/json", value.to_string())
}

/// A plain-text answer.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", text.into())
}

/// A failure.
pub fn status(status: &Status) -> Response<Body> {
    let mut response = json(status.code, &status.to_value());
    if let Some(seconds) = status.retry_after() {
        let value = HeaderValue::from(seconds);
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

/// Adds one `Warning: 299` header per text (RFC 7234 §5.5; KEP-1693).
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_acceptable_form_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let cases = [
            (kubectl, Some(Form::Table)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Form::Object),
            ),
            ("*/*", Some(Form::Object)),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Form::Metadata),
            ),
            ("application/vnd.kubernetes.protobuf", None),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
            assert_eq!(Form::of(&headers).ok(), expected, "{accept}");
        }
    }
}
