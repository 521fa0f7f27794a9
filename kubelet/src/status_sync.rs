//! The only writer of pod status to the API server, and of the final deletion.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::pod::store::PodStore;
use crate::pod::{self, PodUid, is_static};

/// A cheap handle through which workers report.
#[derive(Clone, Debug)]
pub struct StatusSync {
    queue: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
enum Command {
    Set {
        uid: PodUid,
        pod: Arc<Pod>,
        status: Arc<PodStatus>,
    },
    Delete {
        uid: PodUid,
        pod: Arc<Pod>,
        done: oneshot::Sender<()>,
    },
    /// The mirror of a static pod has appeared: its status is to be written (again).
    Again { uid: PodUid },
}

/// Writes what the handles report.
#[derive(Debug)]
pub struct StatusWriter {
    queue: mpsc::UnboundedReceiver<Command>,
    store: PodStore,
}

/// A handle and the writer behind it.
#[must_use]
pub fn status_sync(store: PodStore) -> (StatusSync, StatusWriter) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let writer = StatusWriter {
        queue: receiver,
        store,
    };
    (StatusSync { queue: sender }, writer)
}

impl StatusSync {
    /// Reports a pod's status; only the newest of a pod is written.
    pub fn set(&self, uid: PodUid, pod: Arc<Pod>, status: Arc<PodStatus>) {
        // The writer is gone only when the kubelet is going down.
        let _ = self.queue.send(Command::Set { uid, pod, status });
    }

    /// Writes a pod's status again, because what it is written to has changed.
    pub fn again(&self, uid: PodUid) {
        let _ = self.queue.send(Command::Again { uid });
    }

    /// Deletes the API object of a pod of which nothing is left here; returns when it is
    /// gone, or when the pod was not being deleted there.
    pub async fn delete(&self, uid: PodUid, pod: Arc<Pod>) {
        let (done, gone) = oneshot::channel();
        let _ = self.queue.send(Command::Delete { uid, pod, done });
        // An error means that the writer is gone, and the kubelet going down.
        let _ = gone.await;
    }
}

#[derive(Default)]
struct Item {
    pod: Option<Arc<Pod>>,
    wanted: Option<Arc<PodStatus>>,
    written: Option<Arc<PodStatus>>,
    delete: Option<oneshot::Sender<()>>,
    busy: bool,
}

enum Done {
    Written(PodUid, Arc<PodStatus>),
    Deleted(PodUid),
    Failed(PodUid),
}

impl StatusWriter {
    /// Writes statuses, several pods at a time and each pod's in order, for as long as
    /// there are handles.
    pub async fn run(mut self, client: Option<kube::Client>) {
        let Some(client) = client else {
            return self.answer_alone().await;
        };
        let mut items: HashMap<PodUid, Item> = HashMap::new();
        let mut writes: JoinSet<Done> = JoinSet::new();
        loop {
            tokio::select! {
                // Cancel-safe: a receiver loses no message, a set no result.
                command = self.queue.recv() => match command {
                    Some(command) => self.take(command, &mut items, &client, &mut writes),
                    None => return,
                },
                Some(done) = writes.join_next() => {
                    if let Ok(done) = done {
                        self.settle(done, &mut items, &client, &mut writes);
                    }
                }
            }
        }
    }

    /// Without an API server nothing is written and every deletion is done at once.
    async fn answer_alone(&mut self) {
        while let Some(command) = self.queue.recv().await {
            if let Command::Delete { done, .. } = command {
                let _ = done.send(());
            }
        }
    }

    fn take(
        &self,
        command: Command,
        items: &mut HashMap<PodUid, Item>,
        client: &kube::Client,
        writes: &mut JoinSet<Done>,
    ) {
        let uid = match command {
            Command::Set { uid, pod, status } => {
                let item = items.entry(uid.clone()).or_default();
                item.pod = Some(pod);
                item.wanted = Some(status);
                uid
            }
            Command::Again { uid } => {
                if let Some(item) = items.get_mut(&uid) {
                    item.written = None;
                }
                uid
            }
            Command::Delete { uid, pod, done } => {
                let item = items.entry(uid.clone()).or_default();
                item.pod = Some(pod);
                item.delete = Some(done);
                uid
            }
        };
        self.start(&uid, items, client, writes);
    }

    fn settle(
        &self,
        done: Done,
        items: &mut HashMap<PodUid, Item>,
        client: &kube::Client,
        writes: &mut JoinSet<Done>,
    ) {
        let uid = match done {
            Done::Written(uid, status) => {
                if let Some(item) = items.get_mut(&uid) {
                    item.busy = false;
                    item.written = Some(status);
                }
                uid
            }
            Done::Failed(uid) => {
                if let Some(item) = items.get_mut(&uid) {
                    item.busy = false;
                }
                uid
            }
            Done::Deleted(uid) => {
                if let Some(done) = items.remove(&uid).and_then(|item| item.delete) {
                    let _ = done.send(());
                }
                return;
            }
        };
        self.start(&uid, items, client, writes);
    }

    /// Starts the next write of a pod, if there is one and none is under way.
    fn start(
        &self,
        uid: &PodUid,
        items: &mut HashMap<PodUid, Item>,
        client: &kube::Client,
        writes: &mut JoinSet<Done>,
    ) {
        let Some(item) = items.get_mut(uid) else {
            return;
        };
        let Some(pod) = item.pod.clone().filter(|_| !item.busy) else {
            return;
        };
        let target = self.target(&pod);
        if let Some(status) = item
            .wanted
            .clone()
            .filter(|w| item.written.as_ref() != Some(w))
        {
            // A static pod without a mirror yet is written once the mirror appears.
            if let Some(target) = target.clone() {
                item.busy = true;
                writes.spawn(write(client.clone(), uid.clone(), target, status));
                return;
            }
        }
        if item.delete.is_some() {
            item.busy = true;
            writes.spawn(delete(client.clone(), uid.clone(), pod));
        }
    }

    /// The API object that carries the pod's status: itself, or its mirror.
    fn target(&self, pod: &Arc<Pod>) -> Option<Arc<Pod>> {
        if is_static(pod) {
            return self.store.mirror(&pod::key(pod));
        }
        Some(pod.clone())
    }
}

async fn write(
    client: kube::Client,
    uid: PodUid,
    target: Arc<Pod>,
    status: Arc<PodStatus>,
) -> Done {
    let api = Api::<Pod>::namespaced(client, pod::namespace(&target));
    // The UID keeps the status of one incarnation off the next of the same name.
    let patch = json!({"metadata": {"uid": pod::uid(&target)}, "status": nulls_kept(&status)});
    let written = api
        .patch_status(
            pod::name(&target),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await;
    match written {
        Ok(_) => Done::Written(uid, status),
        // Gone, or another incarnation by now: there is nothing left to tell.
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409 | 422) => {
            tracing::debug!(pod = %uid, message = answer.message, "status not taken");
            Done::Written(uid, status)
        }
        Err(error) => {
            tracing::warn!(pod = %uid, %error, "cannot write a pod's status");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Done::Failed(uid)
        }
    }
}

/// The status as a merge patch: what a later status no longer has must go, so those
/// fields are null.
fn nulls_kept(status: &PodStatus) -> serde_json::Value {
    let mut patch = json!(status);
    for field in ["message", "reason", "podIP", "podIPs", "containerStatuses"] {
        if patch.get(field).is_none() {
            patch[field] = serde_json::Value::Null;
        }
    }
    patch
}

async fn delete(client: kube::Client, uid: PodUid, target: Arc<Pod>) -> Done {
    if is_static(&target) || target.metadata.deletion_timestamp.is_none() {
        return Done::Deleted(uid);
    }
    let api = Api::<Pod>::namespaced(client, pod::namespace(&target));
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: target.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(pod::name(&target), &parameters).await {
        Ok(_) => Done::Deleted(uid),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Done::Deleted(uid),
        Err(error) => {
            tracing::warn!(pod = %uid, %error, "cannot delete a pod");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Done::Failed(uid)
        }
    }
}
