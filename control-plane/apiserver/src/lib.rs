//! The Kubernetes REST API server: what clients see, over a [`berth_store::Store`].
//!
//! A request goes `http` (TLS) → `route` (attributes) → `authn` → `authz` → `handler/<verb>`
//! → `admission` → `registry` → store. Types, defaults, validation and printing are data in
//! `berth_api`; here is only what needs the store, a clock or the network.

mod admission;
mod authn;
mod authz;
mod bootstrap;
mod config;
mod encoding;
mod handler;
mod http;
mod kubelet;
mod metrics;
mod object;
pub mod pki;
mod protobuf;
mod registry;
mod request;
mod response;
mod route;
mod server;
mod service_ip;
mod system;
mod token;

pub use config::Config;
pub use server::{RunError, Server, run};
