//! The controllers: each brings one kind of object to its desired state through the
//! public API, with a client of its own identity, against any API server.
//!
//! Watching, the queue with one run a key, and back-off are `kube::runtime`'s. A
//! controller reads what it acts on from the server, not from a cache, so a run
//! never acts twice on what its own last run has changed.

mod deployment;
mod endpoint_slice;
mod garbage_collector;
mod namespace;
mod node_lifecycle;
mod owner;
mod pod_gc;
mod pod_state;
mod replica_set;
mod root_ca;
mod run;
mod selector;
mod service_account;
mod taint_eviction;

use futures::future::join_all;
use kube::Client;
use tokio_util::sync::CancellationToken;

/// The controllers by the names of their service accounts in `kube-system`.
pub const NAMES: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "node-controller",
    "namespace-controller",
    "generic-garbage-collector",
    "service-account-controller",
    "root-ca-cert-publisher",
];

/// Runs every controller until `stop` is cancelled. `client` gives the client for a
/// name of [`NAMES`]; `root_ca` is the PEM text that pods get as `ca.crt`.
pub async fn run(client: impl Fn(&str) -> Client, root_ca: String, stop: CancellationToken) {
    let all: Vec<futures::future::BoxFuture<'_, ()>> = vec![
        Box::pin(deployment::run(
            client("deployment-controller"),
            stop.clone(),
        )),
        Box::pin(replica_set::run(
            client("replicaset-controller"),
            stop.clone(),
        )),
        Box::pin(endpoint_slice::run(
            client("endpointslice-controller"),
            stop.clone(),
        )),
        Box::pin(node_lifecycle::run(client("node-controller"), stop.clone())),
        // Deleting pods of nodes needs no more than the node controller may do.
        Box::pin(pod_gc::run(client("node-controller"), stop.clone())),
        Box::pin(namespace::run(client("namespace-controller"), stop.clone())),
        Box::pin(garbage_collector::run(
            client("generic-garbage-collector"),
            stop.clone(),
        )),
        Box::pin(service_account::run(
            client("service-account-controller"),
            stop.clone(),
        )),
        Box::pin(root_ca::run(
            client("root-ca-cert-publisher"),
            root_ca,
            stop,
        )),
    ];
    join_all(all).await;
}
