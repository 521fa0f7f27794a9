//! Layers on disk and the writable snapshots on top of them.

pub(crate) mod layers;
pub(crate) mod metadata;
pub(crate) mod overlay;

pub use metadata::MetadataError;
