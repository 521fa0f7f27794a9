//! Rolls a Deployment's pods from one template to the next by scaling ReplicaSets.

mod rollout;
mod status;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::SelectorExt;
use kube::runtime::controller::{Action, Controller};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::owner::{self, Claim, controller_ref, is_controlled_by};
use crate::run::{self, ReconcileError, Step, gone_is_done, is_code, watch_all};
use crate::selector;
use berth_events::Kind;

const COMPONENT: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let controller = Controller::new(Api::<Deployment>::all(client.clone()), watch_all())
        .owns(Api::<ReplicaSet>::all(client.clone()), watch_all());
    run::drive(COMPONENT, controller, Arc::new(client), reconcile, stop).await;
}

async fn reconcile(seen: Arc<Deployment>, client: Arc<Client>) -> Result<Action, ReconcileError> {
    let (name, namespace) = (seen.name_any(), seen.namespace().unwrap_or_default());
    let deployments: Api<Deployment> = Api::namespaced((*client).clone(), &namespace);
    let read = || format!("read deployment {namespace}/{name}");
    let Some(deployment) = deployments.get_opt(&name).await.step(read)? else {
        return Ok(Action::await_change());
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut rolling = Rolling {
        client: &client,
        sets: Api::namespaced((*client).clone(), &namespace),
        deployments,
        deployment,
    };
    rolling.step().await
}

struct Rolling<'a> {
    client: &'a Client,
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    deployment: Deployment,
}

impl Rolling<'_> {
    async fn step(&mut self) -> Result<Action, ReconcileError> {
        let mut sets = self.own_sets().await?;
        let paused = self.spec().paused.unwrap_or(false);
        let current = match template::find(&self.deployment, &sets) {
            Some(uid) => Some(uid),
            None if paused => None,
            None => {
                let made = self.create_set(&sets).await?;
                let uid = made.metadata.uid.clone();
                sets.push(made);
                uid
            }
        };
        if let Some(uid) = &current {
            self.ensure_revision(&mut sets, uid).await?;
        }
        for scale in rollout::compute(&self.deployment, &sets, current.as_deref()) {
            self.scale(&mut sets, &scale).await?;
        }
        if !paused && rollout::is_complete(&self.deployment, &sets, current.as_deref()) {
            self.prune(&sets, current.as_deref()).await?;
        }
        self.write_status(&sets, current.as_deref()).await
    }

    fn spec(&self) -> k8s_openapi::api::apps::v1::DeploymentSpec {
        self.deployment.spec.clone().unwrap_or_default()
    }

    /// ReplicaSets controlled by the Deployment: matching orphans are adopted, and what the
    /// selector no longer matches is released, so that it outlives the Deployment.
    async fn own_sets(&self) -> Result<Vec<ReplicaSet>, ReconcileError> {
        let selector = selector::parse(&self.spec().selector)?;
        let all = self.sets.list(&ListParams::default()).await;
        let name = self.deployment.name_any();
        let held = all.step(|| format!("list replica sets of deployment {name}"))?;
        let mut own = Vec::new();
        for set in held.items {
            let matches = selector.matches(set.labels());
            match owner::claim(&self.deployment.metadata, &set.metadata, matches) {
                Claim::Keep => own.push(set),
                Claim::Adopt => {
                    let patch = owner::adoption(&self.deployment, &set.metadata);
                    own.extend(self.change_owner("adopt", &set, patch).await?);
                }
                Claim::Release => {
                    let patch = owner::release(&self.deployment.metadata, &set.metadata);
                    self.change_owner("release", &set, patch).await?;
                }
                Claim::Leave => {}
            }
        }
        own.sort_by_key(|set| (set.creation_timestamp().map(|t| t.0), set.name_any()));
        Ok(own)
    }

    async fn change_owner(
        &self,
        verb: &str,
        set: &ReplicaSet,
        patch: serde_json::Value,
    ) -> Result<Option<ReplicaSet>, ReconcileError> {
        let name = set.name_any();
        let patch = Patch::Strategic(patch);
        let done = self
            .sets
            .patch(&name, &PatchParams::default(), &patch)
            .await;
        gone_is_done(done).step(|| format!("{verb} replica set {name}"))
    }

    /// Makes the ReplicaSet of the present template, with no pods yet.
    async fn create_set(&mut self, held: &[ReplicaSet]) -> Result<ReplicaSet, ReconcileError> {
        let spec = self.spec();
        let collisions = self
            .deployment
            .status
            .as_ref()
            .and_then(|s| s.collision_count)
            .unwrap_or_default();
        let hash = template::hash(&spec.template, collisions);
        let name = format!("{}-{hash}", self.deployment.name_any());
        let mut pods = spec.template.clone();
        let meta = pods.metadata.get_or_insert_default();
        meta.labels
            .get_or_insert_default()
            .insert(template::HASH.into(), hash.clone());
        let labels = meta.labels.clone();
        let mut selector = spec.selector.clone();
        selector
            .match_labels
            .get_or_insert_default()
            .insert(template::HASH.into(), hash);
        let mut annotations = template::copied_annotations(&self.deployment);
        annotations.insert(REVISION.into(), template::next_revision(held).to_string());
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_ref(&self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(pods),
            }),
            status: None,
        };
        match self.sets.create(&PostParams::default(), &set).await {
            Err(error) if is_code(&error, 409) => {
                self.resolve_collision(&name, collisions).await?;
                Err(error).step(|| format!("create replica set {name}"))
            }
            done => done.step(|| format!("create replica set {name}")),
        }
    }

    /// Another template hashes to the same name: the next run uses another hash.
    async fn resolve_collision(&self, name: &str, collisions: i32) -> Result<(), ReconcileError> {
        let step = || format!("look at replica set {name}");
        let Some(taken) = self.sets.get_opt(name).await.step(step)? else {
            return Ok(());
        };
        let uid = self.deployment.metadata.uid.clone().unwrap_or_default();
        if is_controlled_by(&taken.metadata, &uid) && template::is_same(&self.deployment, &taken) {
            return Ok(());
        }
        let patch = json!({ "status": { "collisionCount": collisions + 1 } });
        self.deployments
            .patch_status(
                &self.deployment.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .step(step)?;
        Ok(())
    }

    /// The current ReplicaSet has the highest revision, and the Deployment shows it.
    async fn ensure_revision(
        &mut self,
        sets: &mut [ReplicaSet],
        uid: &str,
    ) -> Result<(), ReconcileError> {
        let Some(index) = sets
            .iter()
            .position(|s| s.metadata.uid.as_deref() == Some(uid))
        else {
            return Ok(());
        };
        let highest_other = sets
            .iter()
            .filter(|s| s.metadata.uid.as_deref() != Some(uid))
            .map(template::revision)
            .max()
            .unwrap_or_default();
        let held = template::revision(&sets[index]);
        let wanted = if held > highest_other {
            held
        } else {
            highest_other + 1
        };
        let text = wanted.to_string();
        let mut annotations = template::copied_annotations(&self.deployment);
        annotations.insert(REVISION.into(), text.clone());
        let set = &sets[index];
        if annotations
            .iter()
            .any(|(k, v)| set.annotations().get(k) != Some(v))
        {
            let name = set.name_any();
            let patch = json!({ "metadata": { "annotations": annotations } });
            sets[index] = self
                .sets
                .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .step(|| format!("number replica set {name}"))?;
        }
        if self.deployment.annotations().get(REVISION) != Some(&text) {
            let name = self.deployment.name_any();
            let patch = json!({ "metadata": { "annotations": { REVISION: text } } });
            self.deployment = self
                .deployments
                .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .step(|| format!("number deployment {name}"))?;
        }
        Ok(())
    }

    async fn scale(
        &self,
        sets: &mut [ReplicaSet],
        scale: &rollout::Scale,
    ) -> Result<(), ReconcileError> {
        let Some(set) = sets
            .iter_mut()
            .find(|s| s.metadata.uid.as_ref() == Some(&scale.uid))
        else {
            return Ok(());
        };
        let name = set.name_any();
        let (from, to) = (rollout::wanted(set), scale.replicas);
        let desired = rollout::desired(&self.deployment);
        let surge = rollout::limits(&self.deployment).surge;
        let annotations = BTreeMap::from([
            (DESIRED, desired.to_string()),
            (MAX, (desired + surge).to_string()),
        ]);
        let held = |key: &str| set.annotations().get(key).cloned();
        if from == to
            && annotations
                .iter()
                .all(|(key, value)| held(key).as_ref() == Some(value))
        {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "resourceVersion": set.metadata.resource_version, "annotations": annotations },
            "spec": { "replicas": to },
        });
        *set = self
            .sets
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .step(|| format!("scale replica set {name} to {to}"))?;
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
            berth_events::publish(
                self.client,
                COMPONENT,
                &self.deployment,
                (Kind::Normal, "ScalingReplicaSet"),
                message,
            )
            .await;
        }
        Ok(())
    }

    /// Deletes old, empty ReplicaSets beyond `revisionHistoryLimit`.
    async fn prune(
        &self,
        sets: &[ReplicaSet],
        current: Option<&str>,
    ) -> Result<(), ReconcileError> {
        let limit = usize::try_from(self.spec().revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let mut old: Vec<&ReplicaSet> = sets
            .iter()
            .filter(|s| {
                s.metadata.uid.as_deref() != current && s.metadata.deletion_timestamp.is_none()
            })
            .filter(|s| {
                rollout::wanted(s) == 0 && s.status.as_ref().is_none_or(|st| st.replicas == 0)
            })
            .collect();
        old.sort_by_key(|s| template::revision(s));
        let surplus = old.len().saturating_sub(limit);
        for set in &old[..surplus] {
            let name = set.name_any();
            gone_is_done(self.sets.delete(&name, &DeleteParams::background()).await)
                .step(|| format!("delete old replica set {name}"))?;
        }
        Ok(())
    }

    async fn write_status(
        &self,
        sets: &[ReplicaSet],
        current: Option<&str>,
    ) -> Result<Action, ReconcileError> {
        let now = Timestamp::now();
        let next = status::compute(&self.deployment, sets, current, now);
        if Some(&next) != self.deployment.status.as_ref() {
            let name = self.deployment.name_any();
            let mut patch = json!({ "status": next });
            // A merge patch forgets only what it names: counts that fell to zero are named.
            for field in [
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
            ] {
                let status = &mut patch["status"];
                if status.get(field).is_none() {
                    status[field] = serde_json::Value::Null;
                }
            }
            self.deployments
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .step(|| format!("write status of deployment {name}"))?;
        }
        Ok(match status::deadline_in(&self.deployment, &next, now) {
            Some(wait) => Action::requeue(wait + Duration::from_secs(1)),
            None => Action::await_change(),
        })
    }
}
