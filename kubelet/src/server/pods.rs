//! `/pods` and `/runningpods/`: lists of pods as this node sees them.

use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::reply::{Refusal, Reply, json};
use super::view::PodView;
use crate::pod::store::Entry;

/// The pods that should run here, with their status.
pub fn pods(view: &PodView) -> Result<Reply, Refusal> {
    json(&list(view.pods()))
}

/// The pods whose containers run here, as the runtime knows them: no status, and of the
/// spec only the running containers.
pub fn running_pods(view: &PodView) -> Result<Reply, Refusal> {
    json(&list(view.entries().iter().filter_map(running).collect()))
}

fn list(items: Vec<Pod>) -> List<Pod> {
    List {
        items,
        ..List::default()
    }
}

fn running(entry: &Entry) -> Option<Pod> {
    let runtime = entry.runtime.as_ref()?;
    let containers: Vec<Container> = runtime
        .running()
        .map(|container| Container {
            name: container.name.clone(),
            image: Some(container.image.clone()),
            ..Container::default()
        })
        .collect();
    if containers.is_empty() {
        return None;
    }
    Some(Pod {
        metadata: ObjectMeta {
            name: entry.pod.metadata.name.clone(),
            namespace: entry.pod.metadata.namespace.clone(),
            uid: entry.pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers,
            ..PodSpec::default()
        }),
        status: None,
    })
}
