//! Answers: bodies, refusals and their status codes.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use crate::cri::CriError;

/// A body, whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer.
pub type Reply = Response<Body>;

/// A request that is not served, with the text the client sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub code: StatusCode,
    /// One line without a line feed.
    pub text: String,
}

impl Refusal {
    pub fn new(code: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal {
            code,
            text: text.into(),
        }
    }

    pub fn bad_request(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }

    pub fn not_found(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, text)
    }

    pub fn internal(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// The refusal as an answer.
    pub fn reply(self) -> Reply {
        text(self.code, self.text + "\n")
    }
}

impl From<CriError> for Refusal {
    /// The codes that the stock kubelet gives CRI errors.
    fn from(error: CriError) -> Refusal {
        let code = match &error {
            CriError::Refused { code, .. } => match code {
                tonic::Code::NotFound => StatusCode::NOT_FOUND,
                tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            CriError::Timeout { .. } | CriError::Incomplete { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Refusal::new(code, error.reason())
    }
}

/// A body of known content.
pub fn whole(content: impl Into<Bytes>) -> Body {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A plain text answer.
pub fn text(code: StatusCode, content: impl Into<Bytes>) -> Reply {
    typed(code, "text/plain; charset=utf-8", whole(content))
}

/// An answer of a given content type.
pub fn typed(code: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = code;
    let value = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(header::CONTENT_TYPE, value);
    reply
}

/// A JSON answer.
pub fn json(value: &impl serde::Serialize) -> Result<Reply, Refusal> {
    let content = serde_json::to_vec(value)
        .map_err(|error| Refusal::internal(format!("cannot write the answer: {error}")))?;
    Ok(typed(StatusCode::OK, "application/json", whole(content)))
}
