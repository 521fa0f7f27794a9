//! The only writer: bindings, the PodScheduled condition, and events.

use std::collections::BTreeMap;

use berth_events::{Kind, refusal};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::warn;

use crate::NAME;

pub(crate) struct Binder {
    client: Client,
    /// The last message reported of a pod: a message that stands is not written again.
    reported: BTreeMap<String, String>,
}

impl Binder {
    pub fn new(client: Client) -> Binder {
        Binder {
            client,
            reported: BTreeMap::new(),
        }
    }

    /// Binds the pod to the node (`pods/binding`), and says so in an event.
    pub async fn bind(&mut self, pod: &Pod, node: &str) -> Result<(), kube::Error> {
        let (namespace, name) = identity(pod);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let _: serde_json::Value = pods
            .create_subresource("binding", name, &PostParams::default(), &binding)
            .await?;
        self.reported
            .remove(pod.metadata.uid.as_deref().unwrap_or_default());
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        let what = (Kind::Normal, "Scheduled");
        berth_events::publish(&self.client, NAME, pod, what, message).await;
        Ok(())
    }

    /// Writes PodScheduled=False and a FailedScheduling event, once for a message.
    pub async fn report_unschedulable(&mut self, pod: &Pod, message: &str) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.reported.get(&uid).is_some_and(|held| held == message) {
            return;
        }
        let (namespace, name) = identity(pod);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let status = json!({ "status": { "conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": Time(Timestamp::now()),
        }]}});
        let patch = Patch::Strategic(&status);
        if let Err(error) = pods
            .patch_status(name, &PatchParams::default(), &patch)
            .await
        {
            let error = refusal::text(&error);
            warn!(pod = name, error, "condition not written");
            return;
        }
        self.reported.insert(uid, message.to_owned());
        let what = (Kind::Warning, "FailedScheduling");
        berth_events::publish(&self.client, NAME, pod, what, message.to_owned()).await;
    }
}

fn identity(pod: &Pod) -> (&str, &str) {
    (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
    )
}
