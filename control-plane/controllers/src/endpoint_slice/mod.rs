//! Publishes the addresses of a Service's pods as EndpointSlices.

mod compute;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::{Selector, SelectorExt};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::run::{self, ReconcileError, Step, gone_is_done, watch_all};

const COMPONENT: &str = "endpointslice-controller";
/// The label that says whose slices these are.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let services: Api<Service> = Api::all(client.clone());
    let controller = Controller::new(services, watch_all())
        .owns(Api::<EndpointSlice>::all(client.clone()), watch_all());
    let known = controller.store();
    let controller = controller.watches(Api::<Pod>::all(client.clone()), watch_all(), move |pod| {
        selecting(&known, &pod)
    });
    run::drive(COMPONENT, controller, Arc::new(client), reconcile, stop).await;
}

/// The Services of the pod's namespace whose selector matches it.
fn selecting(services: &Store<Service>, pod: &Pod) -> Vec<ObjectRef<Service>> {
    let namespace = pod.namespace();
    services
        .state()
        .iter()
        .filter(|service| service.namespace() == namespace)
        .filter(|service| selector_of(service).is_some_and(|s| s.matches(pod.labels())))
        .map(|service| ObjectRef::from_obj(service.as_ref()))
        .collect()
}

/// A Service without a selector has endpoints made by somebody else.
fn selector_of(service: &Service) -> Option<Selector> {
    let labels = service
        .spec
        .as_ref()?
        .selector
        .clone()
        .filter(|labels| !labels.is_empty())?;
    Some(labels.into_iter().collect())
}

async fn reconcile(seen: Arc<Service>, client: Arc<Client>) -> Result<Action, ReconcileError> {
    let (name, namespace) = (seen.name_any(), seen.namespace().unwrap_or_default());
    let services: Api<Service> = Api::namespaced((*client).clone(), &namespace);
    let step = || format!("publish endpoints of service {namespace}/{name}");
    let Some(service) = services.get_opt(&name).await.step(step)? else {
        return Ok(Action::await_change());
    };
    let (Some(selector), None) = (selector_of(&service), &service.metadata.deletion_timestamp)
    else {
        return Ok(Action::await_change());
    };
    let pods: Api<Pod> = Api::namespaced((*client).clone(), &namespace);
    let selected = pods
        .list(&ListParams::default().labels_from(&selector))
        .await
        .step(step)?;
    let slices: Api<EndpointSlice> = Api::namespaced((*client).clone(), &namespace);
    let ours = format!("{SERVICE_NAME}={name},{MANAGED_BY}={MANAGER}");
    let held = slices
        .list(&ListParams::default().labels(&ours))
        .await
        .step(step)?;
    let plan = compute::plan(&service, &selected.items, held.items);
    for slice in &plan.create {
        slices
            .create(&PostParams::default(), slice)
            .await
            .step(step)?;
    }
    for slice in &plan.replace {
        slices
            .replace(&slice.name_any(), &PostParams::default(), slice)
            .await
            .step(step)?;
    }
    for slice in &plan.delete {
        gone_is_done(slices.delete(slice, &DeleteParams::default()).await).step(step)?;
    }
    Ok(Action::await_change())
}
