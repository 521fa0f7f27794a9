//! Mirror pods: objects in the API server that show the static pods of this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::mpsc;

use crate::pod::store::PodStore;
use crate::pod::{self, HASH_ANNOTATION, MIRROR_ANNOTATION, annotation, is_static};

/// Asks for reconciliation; at most one waits.
#[derive(Debug)]
pub struct Mirrors {
    queue: Option<mpsc::Sender<PodStore>>,
}

/// Makes mirrors what they should be.
#[derive(Debug)]
pub struct MirrorWriter {
    queue: mpsc::Receiver<PodStore>,
    /// Deletion waits until the sources are known, lest a mirror be deleted at start only
    /// because its file has not been read yet.
    files_read: Arc<AtomicBool>,
}

/// The asking side and the writer; without an API server there is nothing to write.
#[must_use]
pub fn mirrors(connected: bool, files_read: Arc<AtomicBool>) -> (Mirrors, MirrorWriter) {
    let (sender, receiver) = mpsc::channel(1);
    let mirrors = Mirrors {
        queue: connected.then_some(sender),
    };
    let writer = MirrorWriter {
        queue: receiver,
        files_read,
    };
    (mirrors, writer)
}

impl Mirrors {
    /// Has the mirrors compared with the static pods.
    pub fn reconcile(&self, store: &PodStore) {
        if let Some(queue) = &self.queue {
            // One that waits already will see everything.
            let _ = queue.try_send(store.clone());
        }
    }
}

impl MirrorWriter {
    /// Runs for as long as somebody asks.
    pub async fn run(mut self, client: kube::Client, node: String) {
        while let Some(store) = self.queue.recv().await {
            if let Err(error) = self.reconcile(&client, &store, &node).await {
                tracing::debug!(%error, "cannot write mirror pods");
            }
        }
    }

    async fn reconcile(
        &self,
        client: &kube::Client,
        store: &PodStore,
        node: &str,
    ) -> Result<(), kube::Error> {
        let statics: Vec<Arc<Pod>> = store
            .all()
            .into_iter()
            .map(|entry| entry.pod)
            .filter(|pod| is_static(pod))
            .collect();
        for mirror in store.mirrors() {
            let fits = statics.iter().any(|pod| mirrors_pod(&mirror, pod));
            let dying = mirror.metadata.deletion_timestamp.is_some();
            let unwanted = dying || (!fits && self.files_read.load(Ordering::Relaxed));
            if unwanted && delete(client, &mirror).await? {
                store.remove_mirror(&pod::key(&mirror));
            }
        }
        for pod in &statics {
            if store.mirror(&pod::key(pod)).is_none() {
                let mirror = mirror_of(pod, client, node).await?;
                let api = Api::<Pod>::namespaced(client.clone(), pod::namespace(pod));
                match api.create(&PostParams::default(), &mirror).await {
                    // The watch brings it, now or in a moment.
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn mirrors_pod(mirror: &Pod, pod: &Pod) -> bool {
    pod::key(mirror) == pod::key(pod)
        && annotation(mirror, MIRROR_ANNOTATION) == annotation(pod, HASH_ANNOTATION)
}

/// Deletes a mirror; `false` when it has changed meanwhile, and is to be looked at again.
async fn delete(client: &kube::Client, mirror: &Pod) -> Result<bool, kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), pod::namespace(mirror));
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: mirror.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(pod::name(mirror), &parameters).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        other => other.map(|_| true),
    }
}

/// The object that stands for `pod`, owned by the node.
async fn mirror_of(pod: &Pod, client: &kube::Client, node: &str) -> Result<Pod, kube::Error> {
    let owner = Api::<k8s_openapi::api::core::v1::Node>::all(client.clone())
        .get(node)
        .await?;
    let mut mirror = pod.clone();
    mirror.status = None;
    mirror.metadata.uid = None;
    let hash = annotation(pod, HASH_ANNOTATION)
        .unwrap_or_default()
        .to_owned();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(MIRROR_ANNOTATION.into(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: owner.metadata.uid.unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    Ok(mirror)
}
