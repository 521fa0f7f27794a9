//! gzip for large answers (stock: above 128 KiB). Only bodies that are known as a whole are
//! compressed, never streams.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::response::{self, Body};

/// Smaller answers are sent as they are, bytes.
const THRESHOLD: u64 = 128 * 1024;

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    values.filter_map(|value| value.to_str().ok()).any(|text| {
        text.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && parts.next() != Some("q=0")
        })
    })
}

/// The answer, compressed where that pays.
pub fn compress(response: Response<Body>) -> Response<Body> {
    let known = response.body().size_hint().exact();
    if known.is_none_or(|size| size < THRESHOLD) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Some(bytes) = whole(body) else {
        let broken = berth_api::status::internal("the answer could not be compressed");
        return response::status(&broken);
    };
    match gzip(&bytes) {
        Ok(compressed) => {
            let coding = HeaderValue::from_static("gzip");
            parts.headers.insert(header::CONTENT_ENCODING, coding);
            let vary = HeaderValue::from_static("Accept-Encoding");
            parts.headers.append(header::VARY, vary);
            Response::from_parts(parts, response::full(compressed))
        }
        Err(_) => Response::from_parts(parts, response::full(bytes)),
    }
}

/// The bytes of a body that needs no waiting.
fn whole(mut body: Body) -> Option<Bytes> {
    use futures::FutureExt;
    let frame = body.frame().now_or_never()??;
    frame.ok()?.into_data().ok()
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // The lowest level: the network is usually a loopback.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_answers_are_compressed() {
        let small = compress(response::bytes(200, "text/plain", "x".repeat(100)));
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
        let large = compress(response::bytes(200, "text/plain", "x".repeat(200_000)));
        assert_eq!(large.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(large.body().size_hint().exact().unwrap() < 2_000);
    }

    #[test]
    fn the_coding_is_negotiated() {
        let accepts = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            accepts_gzip(&headers)
        };
        assert!(accepts("deflate, gzip;q=1.0"));
        assert!(!accepts("gzip;q=0"));
        assert!(!accepts("identity"));
    }
}
