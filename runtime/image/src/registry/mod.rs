//! The distribution API's client side: hosts, transport, authorisation, documents and blobs.
//!
//! Specification: opencontainers/distribution-spec v1.1; token service: the distribution project's
//! "Token Authentication Specification".

pub(crate) mod auth;
pub(crate) mod blob;
pub(crate) mod client;
mod error;
pub(crate) mod hosts;
pub(crate) mod transport;

pub use error::RegistryError;
pub use hosts::HostsError;
pub use transport::TransportError;
