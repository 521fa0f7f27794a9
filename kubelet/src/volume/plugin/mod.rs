//! One kind of volume a file. The kinds with content give a payload, which `populate`
//! writes; the others act on the host themselves.

pub mod config_map;
pub mod downward_api;
pub mod empty_dir;
pub mod host_path;
mod items;
pub mod projected;
pub mod secret;
pub mod token;

use crate::objects::ObjectError;

/// Why the content of a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such ConfigMap.
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    /// There is no such Secret.
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    /// An item names a key that the ConfigMap does not have.
    #[error("configmap references non-existent config key: {0}")]
    NoConfigKey(String),
    /// An item names a key that the Secret does not have.
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    /// A path would leave the volume.
    #[error("path `{0}` must be relative, without `..`")]
    Path(String),
    /// A field of the downward API that is none.
    #[error("`{0}` is no field of the downward API")]
    Field(String),
    /// The API server cannot be asked.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// There is no API server that could issue tokens.
    #[error("failed to fetch token: this node has no API server")]
    NoTokens,
    /// The API server issues no token.
    #[error("failed to fetch token")]
    Token(#[source] Box<kube::Error>),
    /// The answer to a token request has no token.
    #[error("failed to fetch token: the answer has none")]
    EmptyToken,
    /// A kind of projection that is not honoured.
    #[error("a source of the projected volume is not supported")]
    Unsupported,
}
