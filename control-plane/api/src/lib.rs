//! The Kubernetes API as data: which resources are served, the type of every
//! object, its defaults and rules, patches, printed tables and the documents
//! that describe all of it. Nothing here does input or output.

pub mod defaults;
pub mod discovery;
pub mod event;
pub mod gvk;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;
pub mod validate;
