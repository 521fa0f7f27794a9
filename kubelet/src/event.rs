//! Events about pods and the node, aggregated: the same event again only raises its count.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use crate::clock::{now_millis, time_of_millis};
use crate::pod::{self, init_containers};

/// Events kept for aggregation.
const MAX_KNOWN: usize = 4096;
/// Events waiting to be written; more are dropped, as an event is no promise.
const QUEUE: usize = 1000;

/// `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Part of ordinary life.
    Normal,
    /// Something is wrong.
    Warning,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        }
    }
}

/// A cheap handle through which events are reported.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    node: String,
}

#[derive(Debug, Clone)]
struct Note {
    about: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
}

/// Writes what recorders report; runs until the last recorder is gone.
#[derive(Debug)]
pub struct EventWriter {
    queue: mpsc::Receiver<Note>,
    node: String,
}

/// A recorder and the writer behind it.
#[must_use]
pub fn recorder(node: &str) -> (Recorder, EventWriter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let recorder = Recorder {
        queue: sender,
        node: node.to_owned(),
    };
    let writer = EventWriter {
        queue: receiver,
        node: node.to_owned(),
    };
    (recorder, writer)
}

impl Recorder {
    /// Reports an event about a pod.
    pub fn pod(&self, pod: &Pod, kind: Kind, reason: &'static str, message: impl Into<String>) {
        self.send(reference(pod, None), kind, reason, message.into());
    }

    /// Reports an event about one container of a pod.
    pub fn container(
        &self,
        about: (&Pod, &str),
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let (pod, container) = about;
        let list = if init_containers(pod).iter().any(|c| c.name == container) {
            "initContainers"
        } else {
            "containers"
        };
        let field = format!("spec.{list}{{{container}}}");
        self.send(reference(pod, Some(field)), kind, reason, message.into());
    }

    /// Reports an event about this node.
    pub fn node(&self, kind: Kind, reason: &'static str, message: impl Into<String>) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.node.clone()),
            // A node's events carry its name as UID, so that they are found before it has one.
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        self.send(about, kind, reason, message.into());
    }

    fn send(&self, about: ObjectReference, kind: Kind, reason: &'static str, message: String) {
        tracing::info!(
            object = about.name.as_deref().unwrap_or_default(),
            reason,
            message,
            "event"
        );
        let note = Note {
            about,
            kind,
            reason,
            message,
        };
        if self.queue.try_send(note).is_err() {
            tracing::warn!(reason, "event dropped: too many are waiting");
        }
    }
}

fn reference(pod: &Pod, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod::namespace(pod).to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

type Key = (String, Option<String>, Kind, &'static str, String);

struct Known {
    name: String,
    namespace: String,
    count: i32,
}

impl EventWriter {
    /// Writes events to the API server; without one they only stand in the log.
    pub async fn run(mut self, client: Option<kube::Client>) {
        let mut known: HashMap<Key, Known> = HashMap::new();
        while let Some(note) = self.queue.recv().await {
            let Some(client) = &client else { continue };
            if known.len() > MAX_KNOWN {
                known.clear();
            }
            if let Err(error) = self.write(client, note, &mut known).await {
                tracing::debug!(%error, "cannot write an event");
            }
        }
    }

    async fn write(
        &self,
        client: &kube::Client,
        note: Note,
        known: &mut HashMap<Key, Known>,
    ) -> Result<(), kube::Error> {
        let now = now_millis();
        let key = (
            note.about.uid.clone().unwrap_or_default(),
            note.about.field_path.clone(),
            note.kind,
            note.reason,
            note.message.clone(),
        );
        if let Some(seen) = known.get_mut(&key) {
            seen.count += 1;
            let patch = json!({"count": seen.count, "lastTimestamp": time_of_millis(now)});
            let api = Api::<Event>::namespaced(client.clone(), &seen.namespace);
            let patched = api
                .patch(&seen.name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            match patched {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(drop),
            }
        }
        let event = self.event(&note, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = Api::<Event>::namespaced(client.clone(), &namespace);
        api.create(&PostParams::default(), &event).await?;
        known.insert(
            key,
            Known {
                name,
                namespace,
                count: 1,
            },
        );
        Ok(())
    }

    fn event(&self, note: &Note, now: i64) -> Event {
        let object = note.about.name.as_deref().unwrap_or("node");
        // Object name and time, as everywhere; the random part keeps two in one tick apart.
        let name = format!("{object}.{now:x}{:04x}", rand::random::<u16>());
        let namespace = note.about.namespace.clone();
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.unwrap_or_else(|| "default".into())),
                ..ObjectMeta::default()
            },
            involved_object: note.about.clone(),
            reason: Some(note.reason.to_owned()),
            message: Some(note.message.clone()),
            type_: Some(note.kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(time_of_millis(now)),
            last_timestamp: Some(time_of_millis(now)),
            source: Some(EventSource {
                component: Some("kubelet".into()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}
