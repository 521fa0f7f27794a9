//! Deletes what nobody owns any more, and serves foreground and orphan deletion.
//!
//! The graph of owners comes from metadata watches on every kind that can be
//! deleted. Before an object is deleted its owners are asked for at the server: the
//! graph only says where to look.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, Discovery, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::run::{ReconcileError, Step, chain, gone_is_done, watch_all};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How often everything is looked at again, for what a lost event left behind.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(30);
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// An object of the graph.
#[derive(Debug, Clone)]
struct Item {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
    deleting: bool,
}

enum Seen {
    Is(String, Box<Item>),
    Gone(String),
}

pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let mut collector = Collector {
        client,
        graph: BTreeMap::new(),
        dirty: BTreeSet::new(),
    };
    while !stop.is_cancelled() {
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = collector.watch() => done,
        };
        if let Err(error) = done {
            warn!(
                controller = "generic-garbage-collector",
                error = chain(&error),
                "run failed; trying again"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

struct Collector {
    client: Client,
    /// Invariant: keyed by UID.
    graph: BTreeMap<String, Item>,
    /// UIDs to look at.
    dirty: BTreeSet<String>,
}

impl Collector {
    async fn watch(&mut self) -> Result<(), ReconcileError> {
        let mut seen = self.streams().await?;
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            // Cancel-safe: an event that is not taken stays in its stream.
            tokio::select! {
                event = seen.next() => match event {
                    Some(event) => self.note(event),
                    None => return Ok(()),
                },
                _ = sweep.tick() => self.dirty.extend(self.graph.keys().cloned()),
            }
            while let Some(Some(event)) = futures::FutureExt::now_or_never(seen.next()) {
                self.note(event);
            }
            self.process().await;
        }
    }

    async fn streams(&self) -> Result<SelectAll<BoxStream<'static, Seen>>, ReconcileError> {
        let discovery = Discovery::new(self.client.clone())
            .run()
            .await
            .step(|| "discover what can be deleted".into())?;
        let mut all = SelectAll::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let serves = |verb| capabilities.supports_operation(verb);
                // Events own nothing, are owned by nobody and come by the thousand.
                if serves(verbs::DELETE) && serves(verbs::WATCH) && resource.kind != "Event" {
                    all.push(self.stream(resource));
                }
            }
        }
        Ok(all)
    }

    fn stream(&self, resource: ApiResource) -> BoxStream<'static, Seen> {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), &resource);
        watcher(api, watch_all())
            .default_backoff()
            .inspect_err(|error| debug!(%error, "watch failed; trying again"))
            .filter_map(move |event| {
                let seen = match event {
                    Ok(watcher::Event::Apply(meta) | watcher::Event::InitApply(meta)) => {
                        item(&resource, meta)
                    }
                    Ok(watcher::Event::Delete(meta)) => meta.uid().map(Seen::Gone),
                    _ => None,
                };
                std::future::ready(seen)
            })
            .boxed()
    }

    fn note(&mut self, seen: Seen) {
        let uid = match seen {
            Seen::Is(uid, item) => {
                if !item.owners.is_empty() || item.deleting {
                    self.dirty.insert(uid.clone());
                }
                self.dirty.extend(item.owners.iter().map(|o| o.uid.clone()));
                self.graph.insert(uid.clone(), *item);
                uid
            }
            Seen::Gone(uid) => {
                if let Some(item) = self.graph.remove(&uid) {
                    self.dirty.extend(item.owners.iter().map(|o| o.uid.clone()));
                }
                uid
            }
        };
        let dependents = self
            .graph
            .iter()
            .filter(|(_, item)| item.owners.iter().any(|o| o.uid == uid));
        let uids: Vec<String> = dependents.map(|(uid, _)| uid.clone()).collect();
        self.dirty.extend(uids);
    }

    async fn process(&mut self) {
        for uid in std::mem::take(&mut self.dirty) {
            let Some(item) = self.graph.get(&uid).cloned() else {
                continue;
            };
            if let Err(error) = self.look_at(&uid, &item).await {
                // The next sweep looks again.
                warn!(
                    controller = "generic-garbage-collector",
                    error = chain(&error),
                    "run failed; trying again"
                );
            }
        }
    }

    async fn look_at(&self, uid: &str, item: &Item) -> Result<(), ReconcileError> {
        if item.deleting && item.finalizers.iter().any(|f| f == ORPHAN) {
            return self.orphan(uid, item).await;
        }
        if item.deleting && item.finalizers.iter().any(|f| f == FOREGROUND) {
            return self.delete_dependents_first(uid, item).await;
        }
        if item.deleting || item.owners.is_empty() {
            return Ok(());
        }
        let mut absent = Vec::new();
        for owner in &item.owners {
            if self.exists(owner, item).await? {
                return Ok(());
            }
            absent.push(&owner.name);
        }
        debug!(object = item.name, owners = ?absent, "no owner is left; deleting");
        self.delete(uid, item, &DeleteParams::background()).await
    }

    /// Whether the very object that is named as owner is there. An owner of a kind
    /// that this server does not serve is left alone: its absence cannot be known.
    async fn exists(
        &self,
        owner: &OwnerReference,
        dependent: &Item,
    ) -> Result<bool, ReconcileError> {
        if self
            .graph
            .get(&owner.uid)
            .is_some_and(|held| !held.deleting)
        {
            return Ok(true);
        }
        let same = |item: &&Item| {
            item.resource.kind == owner.kind && item.resource.api_version == owner.api_version
        };
        let Some(resource) = self
            .graph
            .values()
            .find(same)
            .map(|item| item.resource.clone())
            .or_else(|| guess(owner))
        else {
            return Ok(true);
        };
        let api = self.api(&resource, dependent.namespace.as_deref(), &owner.kind);
        let live = api
            .get_metadata_opt(&owner.name)
            .await
            .step(|| format!("look for owner {} {}", owner.kind, owner.name))?;
        Ok(live.is_some_and(|live| live.uid().as_deref() == Some(&owner.uid)))
    }

    async fn delete_dependents_first(&self, uid: &str, item: &Item) -> Result<(), ReconcileError> {
        let mut blocking = 0;
        for (dependent_uid, dependent) in self.dependents(uid) {
            let blocks = |o: &OwnerReference| o.uid == uid && o.block_owner_deletion == Some(true);
            blocking += usize::from(dependent.owners.iter().any(blocks));
            if !dependent.deleting {
                self.delete(dependent_uid, dependent, &DeleteParams::foreground())
                    .await?;
            }
        }
        if blocking == 0 {
            self.drop_finalizer(item, FOREGROUND).await?;
        }
        Ok(())
    }

    async fn orphan(&self, uid: &str, item: &Item) -> Result<(), ReconcileError> {
        for (_, dependent) in self.dependents(uid) {
            let left: Vec<&OwnerReference> =
                dependent.owners.iter().filter(|o| o.uid != uid).collect();
            let patch = json!({ "metadata": { "ownerReferences": left } });
            let api = self.api(&dependent.resource, dependent.namespace.as_deref(), "");
            let done = api
                .patch_metadata(
                    &dependent.name,
                    &PatchParams::default(),
                    &Patch::Merge(&patch),
                )
                .await;
            gone_is_done(done)
                .step(|| format!("orphan {} {}", dependent.resource.kind, dependent.name))?;
        }
        self.drop_finalizer(item, ORPHAN).await
    }

    fn dependents<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> {
        self.graph
            .iter()
            .filter(move |(_, item)| item.owners.iter().any(|o| o.uid == uid))
            .map(|(uid, item)| (uid.as_str(), item))
    }

    async fn drop_finalizer(&self, item: &Item, finalizer: &str) -> Result<(), ReconcileError> {
        let left: Vec<&String> = item.finalizers.iter().filter(|f| *f != finalizer).collect();
        let patch = json!({ "metadata": { "finalizers": left } });
        let api = self.api(&item.resource, item.namespace.as_deref(), "");
        let done = api
            .patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        gone_is_done(done)
            .map(drop)
            .step(|| format!("release {} {}", item.resource.kind, item.name))
    }

    async fn delete(
        &self,
        uid: &str,
        item: &Item,
        how: &DeleteParams,
    ) -> Result<(), ReconcileError> {
        let exactly = how.clone().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let api = self.api(&item.resource, item.namespace.as_deref(), "");
        gone_is_done(api.delete(&item.name, &exactly).await)
            .map(drop)
            .step(|| format!("delete {} {}", item.resource.kind, item.name))
    }

    /// Owners are in the dependent's namespace, or have none themselves.
    fn api(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        kind: &str,
    ) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) if !matches!(kind, "Node" | "Namespace") => {
                Api::namespaced_with(self.client.clone(), namespace, resource)
            }
            _ => Api::all_with(self.client.clone(), resource),
        }
    }
}

/// The kinds that own others before any object of theirs was ever seen.
fn guess(owner: &OwnerReference) -> Option<ApiResource> {
    let (group, version) = owner
        .api_version
        .split_once('/')
        .unwrap_or(("", &owner.api_version));
    let plural = match owner.kind.as_str() {
        "Deployment" => "deployments",
        "ReplicaSet" => "replicasets",
        "Service" => "services",
        "Node" => "nodes",
        "Pod" => "pods",
        _ => return None,
    };
    Some(ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        plural: plural.into(),
    })
}

fn item(resource: &ApiResource, meta: PartialObjectMeta<DynamicObject>) -> Option<Seen> {
    let uid = meta.uid()?;
    let item = Item {
        resource: resource.clone(),
        namespace: meta.namespace(),
        name: meta.name_any(),
        owners: meta.owner_references().to_vec(),
        finalizers: meta.finalizers().to_vec(),
        deleting: meta.metadata.deletion_timestamp.is_some(),
    };
    Some(Seen::Is(uid, Box::new(item)))
}
