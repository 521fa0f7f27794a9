//! The numbered errors of the CNI specification (section 5, "Error").

use serde::{Deserialize, Serialize};

/// Error codes. 1 to 99 are the specification's, 100 and above are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The version asked for is not supported.
    IncompatibleVersion = 1,
    /// A field of the configuration is not supported; the message names it.
    UnsupportedField = 2,
    /// The container is unknown or does not exist.
    UnknownContainer = 3,
    /// A `CNI_*` variable is missing or malformed.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is not JSON, or not of the expected shape.
    Decode = 6,
    /// The configuration is well formed but wrong.
    InvalidConfig = 7,
    /// A temporary condition; the same call may succeed later.
    TryAgainLater = 11,
    /// STATUS: the plugin cannot serve an ADD.
    NotAvailable = 50,
    /// A kernel interface refused a step of ADD or DEL.
    Kernel = 100,
    /// IPAM has no free address left.
    Exhausted = 101,
    /// CHECK found the attachment changed.
    CheckFailed = 102,
}

impl Code {
    fn from_number(number: u32) -> Option<Code> {
        use Code::*;
        [
            IncompatibleVersion,
            UnsupportedField,
            UnknownContainer,
            InvalidEnvironment,
            Io,
            Decode,
            InvalidConfig,
            TryAgainLater,
            NotAvailable,
            Kernel,
            Exhausted,
            CheckFailed,
        ]
        .into_iter()
        .find(|code| *code as u32 == number)
    }
}

/// An error as a plugin reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{msg}{}", details.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
pub struct CniError {
    /// The number; see [`Code`].
    pub code: u32,
    /// The step that failed and the object it was about.
    pub msg: String,
    /// The cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

impl CniError {
    /// An error without a separate cause.
    pub fn new(code: Code, msg: impl Into<String>) -> CniError {
        CniError {
            code: code as u32,
            msg: msg.into(),
            details: None,
        }
    }

    /// An error with the cause in `details`.
    pub fn caused(code: Code, msg: impl Into<String>, cause: impl std::fmt::Display) -> CniError {
        CniError {
            code: code as u32,
            msg: msg.into(),
            details: Some(cause.to_string()),
        }
    }

    /// An error with the cause, and the cause's own causes, in `details`.
    pub fn from_source(
        code: Code,
        msg: impl Into<String>,
        source: &dyn std::error::Error,
    ) -> CniError {
        CniError::caused(code, msg, chain(source))
    }

    /// The code, where it is one that we know.
    pub fn kind(&self) -> Option<Code> {
        Code::from_number(self.code)
    }

    /// Whether the same call may succeed later without a change of configuration.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            Some(Code::TryAgainLater | Code::Io | Code::Kernel | Code::NotAvailable)
        )
    }

    /// The document that a plugin prints on stdout when it fails.
    pub fn to_json(&self, cni_version: &str) -> String {
        serde_json::json!({
            "cniVersion": cni_version,
            "code": self.code,
            "msg": self.msg,
            "details": self.details.as_deref().unwrap_or(""),
        })
        .to_string()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
