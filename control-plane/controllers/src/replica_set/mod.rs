//! Keeps as many pods as a ReplicaSet asks for.

mod rank;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::SelectorExt;
use kube::runtime::controller::{Action, Controller};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::owner::{self, Claim, controller_ref};
use crate::pod_state::is_active;
use crate::run::{self, ReconcileError, Step, gone_is_done, watch_all};
use crate::selector;
use berth_events::{Kind, refusal};

const COMPONENT: &str = "replicaset-controller";
/// Pods made or deleted in one run; the next run goes on.
const BURST: usize = 500;
/// Requests under way at once.
const PARALLEL: usize = 8;

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let controller = Controller::new(Api::<ReplicaSet>::all(client.clone()), watch_all())
        .owns(Api::<Pod>::all(client.clone()), watch_all());
    run::drive(COMPONENT, controller, Arc::new(client), reconcile, stop).await;
}

async fn reconcile(seen: Arc<ReplicaSet>, client: Arc<Client>) -> Result<Action, ReconcileError> {
    let (name, namespace) = (seen.name_any(), seen.namespace().unwrap_or_default());
    let sets: Api<ReplicaSet> = Api::namespaced((*client).clone(), &namespace);
    let read = || format!("read replica set {namespace}/{name}");
    let Some(set) = sets.get_opt(&name).await.step(read)? else {
        return Ok(Action::await_change());
    };
    let set = Set {
        client: &client,
        pods: Api::namespaced((*client).clone(), &namespace),
        set,
    };
    let held = set.own_pods().await?;
    let scaled = if set.set.metadata.deletion_timestamp.is_none() {
        set.scale(&held).await
    } else {
        Ok(())
    };
    // The status is written even when scaling failed: it carries the reason.
    let held = set.own_pods().await?;
    let now = Timestamp::now();
    let failure = scaled.as_ref().err().map(|error| run::chain(error));
    let next = status::compute(&set.set, &held, failure, now);
    if Some(&next) != set.set.status.as_ref() {
        let mut patch = json!({ "status": next });
        // A merge patch forgets only what it names: what fell to nothing is named.
        for field in [
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "conditions",
        ] {
            let status = &mut patch["status"];
            if status.get(field).is_none() {
                status[field] = serde_json::Value::Null;
            }
        }
        sets.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .step(|| format!("write status of replica set {namespace}/{name}"))?;
    }
    scaled?;
    Ok(match status::next_available(&set.set, &held, now) {
        Some(wait) => Action::requeue(wait.max(Duration::from_millis(100))),
        None => Action::await_change(),
    })
}

struct Set<'a> {
    client: &'a Client,
    pods: Api<Pod>,
    set: ReplicaSet,
}

impl Set<'_> {
    /// Pods controlled by the set: matching orphans are adopted, and what the selector no
    /// longer matches is released, so that it outlives the set.
    async fn own_pods(&self) -> Result<Vec<Pod>, ReconcileError> {
        let spec = self.set.spec.clone().unwrap_or_default();
        let selector = selector::parse(&spec.selector)?;
        let step = || format!("list pods of replica set {}", self.set.name_any());
        let mut own = Vec::new();
        for pod in self
            .pods
            .list(&ListParams::default())
            .await
            .step(step)?
            .items
        {
            let matches = selector.matches(pod.labels());
            match owner::claim(&self.set.metadata, &pod.metadata, matches) {
                Claim::Keep => own.push(pod),
                Claim::Adopt if is_active(&pod) => {
                    let patch = owner::adoption(&self.set, &pod.metadata);
                    own.extend(self.change_owner("adopt", &pod, patch).await?);
                }
                Claim::Release if is_active(&pod) => {
                    let patch = owner::release(&self.set.metadata, &pod.metadata);
                    self.change_owner("release", &pod, patch).await?;
                }
                Claim::Adopt | Claim::Release | Claim::Leave => {}
            }
        }
        Ok(own)
    }

    async fn change_owner(
        &self,
        verb: &str,
        pod: &Pod,
        patch: serde_json::Value,
    ) -> Result<Option<Pod>, ReconcileError> {
        let name = pod.name_any();
        let patch = Patch::Strategic(patch);
        let done = self
            .pods
            .patch(&name, &PatchParams::default(), &patch)
            .await;
        gone_is_done(done).step(|| format!("{verb} pod {name}"))
    }

    async fn scale(&self, held: &[Pod]) -> Result<(), ReconcileError> {
        let spec = self.set.spec.clone().unwrap_or_default();
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let active: Vec<&Pod> = held.iter().filter(|pod| is_active(pod)).collect();
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            let template = spec
                .template
                .ok_or_else(|| ReconcileError::Invalid("spec.template is required".into()))?;
            let pod = Pod {
                metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                    generate_name: Some(format!("{}-", self.set.name_any())),
                    owner_references: Some(vec![controller_ref(&self.set)]),
                    ..template.metadata.unwrap_or_default()
                },
                spec: template.spec,
                status: None,
            };
            return self.create(&pod, missing).await;
        }
        let surplus = rank::victims(&active, active.len() - wanted);
        let surplus: Vec<String> = surplus
            .into_iter()
            .take(BURST)
            .map(ResourceExt::name_any)
            .collect();
        stream::iter(surplus)
            .map(|name| self.delete(name))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    /// One pod first, so that a refusal (a quota, a bad template) costs one request.
    async fn create(&self, pod: &Pod, count: usize) -> Result<(), ReconcileError> {
        self.create_one(pod).await?;
        stream::iter(1..count)
            .map(|_| self.create_one(pod))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    async fn create_one(&self, pod: &Pod) -> Result<(), ReconcileError> {
        match self.pods.create(&PostParams::default(), pod).await {
            Ok(made) => {
                let message = format!("Created pod: {}", made.name_any());
                self.say((Kind::Normal, "SuccessfulCreate"), message).await;
                Ok(())
            }
            Err(error) => {
                let message = format!("Error creating: {}", refusal::text(&error));
                self.say((Kind::Warning, "FailedCreate"), message).await;
                Err(error).step(|| format!("create a pod of replica set {}", self.set.name_any()))
            }
        }
    }

    async fn delete(&self, name: String) -> Result<(), ReconcileError> {
        gone_is_done(self.pods.delete(&name, &DeleteParams::default()).await)
            .step(|| format!("delete pod {name}"))?;
        self.say(
            (Kind::Normal, "SuccessfulDelete"),
            format!("Deleted pod: {name}"),
        )
        .await;
        Ok(())
    }

    async fn say(&self, what: (Kind, &str), message: String) {
        berth_events::publish(self.client, COMPONENT, &self.set, what, message).await;
    }
}
