//! Gives every namespace its ServiceAccount `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::run::{self, ReconcileError, Step, watch_all};

const NAME: &str = "default";

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let controller = Controller::new(Api::<Namespace>::all(client.clone()), watch_all()).watches(
        Api::<ServiceAccount>::all(client.clone()),
        watch_all().fields(&format!("metadata.name={NAME}")),
        |account| account.namespace().map(|name| ObjectRef::new(&name)),
    );
    run::drive(
        "service-account-controller",
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
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let name = namespace.name_any();
    let accounts: Api<ServiceAccount> = Api::namespaced((*client).clone(), &name);
    let step = || format!("make service account {name}/{NAME}");
    if accounts.get_opt(NAME).await.step(step)?.is_none() {
        let new = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        accounts
            .create(&PostParams::default(), &new)
            .await
            .step(step)?;
    }
    Ok(Action::await_change())
}
