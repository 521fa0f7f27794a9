//! Why a registry did not give what it was asked for.

use http::StatusCode;

use crate::digest::Digest;

/// Characters of a registry's own message that are kept.
const MAX_REASON: usize = 512;

/// One failed request, with the registry's own reason. Never holds credentials or query strings.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// 404, or 400 for an unknown name.
    #[error("{host}: {reason}: not found")]
    NotFound {
        /// The registry.
        host: String,
        /// Its words.
        reason: String,
    },
    /// 401 or 403.
    #[error("{host}: {status}: {reason}: access denied, or the repository does not exist")]
    Denied {
        /// The registry.
        host: String,
        /// 401 or 403.
        status: StatusCode,
        /// Its words, or ours where authorisation ended before it was asked.
        reason: String,
    },
    /// Any other unexpected status.
    #[error("{host}: unexpected status {status}: {reason}")]
    Status {
        /// The registry.
        host: String,
        /// What it answered.
        status: StatusCode,
        /// Its words.
        reason: String,
    },
    /// No answer.
    #[error("{host}: {reason}")]
    Transport {
        /// The registry.
        host: String,
        /// Connection, TLS or protocol failure, with its causes.
        reason: String,
    },
    /// The answer breaks the protocol or is refused for safety.
    #[error("{host}: {reason}")]
    Refused {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The content is not what its digest says.
    #[error("{host}: content does not match digest {expected}")]
    DigestMismatch {
        /// The registry.
        host: String,
        /// What was asked for.
        expected: Digest,
    },
    /// Several hosts were tried.
    #[error("{last} (before that: {})", join(.before))]
    AllHosts {
        /// The last host's failure.
        last: Box<RegistryError>,
        /// The mirrors' failures, in order.
        before: Vec<RegistryError>,
    },
    /// The content store failed.
    #[error("cannot store the download: {0}")]
    Store(std::io::Error),
    /// The reader of a download gave up first; its own error says why.
    #[error("the download was given up")]
    GivenUp,
}

impl RegistryError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::DigestMismatch { .. } | Self::GivenUp => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::AllHosts { last, before } => {
                last.is_retryable() || before.iter().any(Self::is_retryable)
            }
            Self::NotFound { .. } | Self::Denied { .. } | Self::Refused { .. } | Self::Store(_) => {
                false
            }
        }
    }

    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::AllHosts { last, .. } => last.is_not_found(),
            _ => false,
        }
    }

    /// The error for a status that is not a success, from the body the registry sent.
    pub(crate) fn from_status(host: &str, status: StatusCode, body: &[u8]) -> Self {
        let host = host.to_owned();
        let reason = reason(status, body);
        match status {
            StatusCode::NOT_FOUND => Self::NotFound { host, reason },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied {
                host,
                status,
                reason,
            },
            _ => Self::Status {
                host,
                status,
                reason,
            },
        }
    }

    /// One error for a list of hosts that all failed; `None` when none was asked.
    pub(crate) fn all_hosts(mut failures: Vec<Self>) -> Option<Self> {
        let last = failures.pop()?;
        if failures.is_empty() {
            return Some(last);
        }
        Some(Self::AllHosts {
            last: Box::new(last),
            before: failures,
        })
    }
}

fn join(errors: &[RegistryError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The registry's words: the distribution specification's `errors` document, a token service's
/// `details`/`error_description`, else the status's name.
fn reason(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|document| {
            let first = document.get("errors").and_then(|errors| errors.get(0));
            let text = |value: Option<&serde_json::Value>| {
                value
                    .and_then(serde_json::Value::as_str)
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
            };
            let member = |name: &str| text(document.get(name));
            text(first.and_then(|error| error.get("message")))
                .or_else(|| text(first.and_then(|error| error.get("code"))))
                .or_else(|| member("error_description"))
                .or_else(|| member("details"))
                .or_else(|| member("message"))
        });
    let said = said.unwrap_or_else(|| {
        status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_lowercase()
    });
    said.chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect()
}

/// An error and its causes in one line; libraries below keep the useful part in the cause.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_words_are_kept() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let error = RegistryError::from_status("r:5000", StatusCode::NOT_FOUND, body);
        assert_eq!(error.to_string(), "r:5000: manifest unknown: not found");
        assert!(error.is_not_found() && !error.is_retryable());
        let error = RegistryError::from_status("r", StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(
            error.to_string(),
            "r: unexpected status 502 Bad Gateway: bad gateway"
        );
        assert!(error.is_retryable());
        let body = br#"{"details":"bad\u001b[31m\ncredentials"}"#;
        let error = RegistryError::from_status("r", StatusCode::UNAUTHORIZED, body);
        assert!(error.to_string().contains("bad[31mcredentials"), "{error}");
    }
}
