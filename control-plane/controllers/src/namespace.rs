//! Empties a namespace that is being deleted, then lets it go.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::runtime::controller::{Action, Controller};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::run::{self, ReconcileError, Step, gone_is_done, is_code, watch_all};

/// How soon a namespace that still has objects (pods in their grace period) is looked at again.
const AGAIN: Duration = Duration::from_millis(500);
/// The finalizer that holds a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let controller = Controller::new(Api::<Namespace>::all(client.clone()), watch_all());
    run::drive(
        "namespace-controller",
        controller,
        Arc::new(client),
        reconcile,
        stop,
    )
    .await;
}

async fn reconcile(
    namespace: Arc<Namespace>,
    client: Arc<Client>,
) -> Result<Action, ReconcileError> {
    if namespace.metadata.deletion_timestamp.is_none() {
        return Ok(Action::await_change());
    }
    let name = namespace.name_any();
    let discovery = Discovery::new((*client).clone())
        .run()
        .await
        .step(|| "discover what a namespace can hold".into())?;
    let mut left = 0;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            left += empty(&client, &name, &resource, &capabilities).await?;
        }
    }
    if left > 0 {
        return Ok(Action::requeue(AGAIN));
    }
    finalize(&client, &name).await?;
    Ok(Action::await_change())
}

/// Deletes every object of a kind; how many are still there.
async fn empty(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    capabilities: &ApiCapabilities,
) -> Result<usize, ReconcileError> {
    let serves = |verb| capabilities.supports_operation(verb);
    if capabilities.scope != Scope::Namespaced || !serves(verbs::LIST) || !serves(verbs::DELETE) {
        return Ok(0);
    }
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let step = || format!("empty namespace {namespace} of {}", resource.plural);
    let held = api.list_metadata(&ListParams::default()).await.step(step)?;
    for object in &held.items {
        if object.metadata.deletion_timestamp.is_none() {
            let name = object.name_any();
            gone_is_done(api.delete(&name, &DeleteParams::background()).await).step(step)?;
        }
    }
    if held.items.is_empty() {
        return Ok(0);
    }
    Ok(api
        .list_metadata(&ListParams::default())
        .await
        .step(step)?
        .items
        .len())
}

async fn finalize(client: &Client, name: &str) -> Result<(), ReconcileError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let step = || format!("finalize namespace {name}");
    let Some(mut live) = namespaces.get_opt(name).await.step(step)? else {
        return Ok(());
    };
    let spec = live.spec.get_or_insert_default();
    if let Some(finalizers) = &mut spec.finalizers {
        finalizers.retain(|f| f != FINALIZER);
    }
    let done: Result<Namespace, _> = namespaces
        .replace_subresource("finalize", name, &PostParams::default(), &live)
        .await;
    match done {
        Err(error) if is_code(&error, 404) => Ok(()),
        done => done.map(drop).step(step),
    }
}
