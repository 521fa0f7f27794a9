//! Publishes the cluster's CA as ConfigMap `kube-root-ca.crt` in every namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::run::{self, ReconcileError, Step, watch_all};

const NAME: &str = "kube-root-ca.crt";

struct Context {
    client: Client,
    ca: String,
}

pub(crate) async fn run(client: Client, ca: String, stop: CancellationToken) {
    let controller = Controller::new(Api::<Namespace>::all(client.clone()), watch_all()).watches(
        Api::<ConfigMap>::all(client.clone()),
        watch_all().fields(&format!("metadata.name={NAME}")),
        |config_map| config_map.namespace().map(|name| ObjectRef::new(&name)),
    );
    let context = Arc::new(Context { client, ca });
    run::drive(
        "root-ca-cert-publisher",
        controller,
        context,
        reconcile,
        stop,
    )
    .await;
}

async fn reconcile(
    namespace: Arc<Namespace>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let name = namespace.name_any();
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &name);
    let data = BTreeMap::from([("ca.crt".to_owned(), context.ca.clone())]);
    let step = || format!("publish {NAME} in namespace {name}");
    match maps.get_opt(NAME).await.step(step)? {
        Some(held) if held.data.as_ref() == Some(&data) => {}
        Some(mut held) => {
            held.data = Some(data);
            maps.replace(NAME, &PostParams::default(), &held)
                .await
                .step(step)?;
        }
        None => {
            let new = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    annotations: Some(BTreeMap::from([(
                        "kubernetes.io/description".to_owned(),
                        "The certificate authority by which pods verify the API server.".to_owned(),
                    )])),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            };
            maps.create(&PostParams::default(), &new).await.step(step)?;
        }
    }
    Ok(Action::await_change())
}
