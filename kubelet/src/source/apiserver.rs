//! Pods bound to this node, by list and watch with `spec.nodeName`.

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::mpsc;

use super::{Origin, SourceEvent};
use crate::pod::{MIRROR_ANNOTATION, SOURCE_ANNOTATION};

/// Follows the API server for as long as somebody listens; a lost connection is made again
/// with back-off, and everything listed again.
pub async fn run(client: kube::Client, node: &str, events: mpsc::UnboundedSender<SourceEvent>) {
    let api = Api::<Pod>::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let stream = watcher(api, config).default_backoff();
    pin_mut!(stream);
    let mut listed = Vec::new();
    let origin = Origin::Api;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                listed.push(from_api(pod));
                continue;
            }
            Ok(watcher::Event::InitDone) => SourceEvent::Snapshot {
                origin,
                pods: std::mem::take(&mut listed),
            },
            Ok(watcher::Event::Apply(pod)) => SourceEvent::Set {
                origin,
                pod: Box::new(from_api(pod)),
            },
            Ok(watcher::Event::Delete(pod)) => SourceEvent::Gone {
                origin,
                pod: Box::new(from_api(pod)),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot follow the pods of this node");
                continue;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Managed fields are nothing to the kubelet and are the largest part of many objects. Where
/// a pod comes from is not the pod's to say: a static one is spared from eviction.
fn from_api(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    if let Some(annotations) = &mut pod.metadata.annotations
        && !annotations.contains_key(MIRROR_ANNOTATION)
        && let Some(source) = annotations.get_mut(SOURCE_ANNOTATION)
    {
        "api".clone_into(source);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{is_critical, is_static};

    #[test]
    fn a_pod_of_the_api_cannot_pass_for_a_static_one() {
        let mut pod = crate::testing::pod_of(&["c"], "Always");
        let claim = (SOURCE_ANNOTATION.to_owned(), "file".to_owned());
        pod.metadata.annotations = Some([claim].into());
        assert!(is_static(&pod));
        let pod = from_api(pod);
        assert!(!is_static(&pod) && !is_critical(&pod));
    }
}
