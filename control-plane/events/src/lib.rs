//! Events about what a part of the control plane did, for people.

pub mod refusal;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use tracing::{debug, warn};

/// Normal, or a warning.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// As intended.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Writes an event about `object`. Losing one never undoes what was done.
pub async fn publish<K: Resource<DynamicType = ()>>(
    client: &Client,
    component: &str,
    object: &K,
    (kind, reason): (Kind, &str),
    message: String,
) {
    let meta = object.meta();
    let name = meta.name.clone().unwrap_or_default();
    let namespace = meta.namespace.clone().unwrap_or_else(|| "default".into());
    let now = Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            namespace: meta.namespace.clone(),
            name: Some(name.clone()),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectReference::default()
        },
        type_: Some(match kind {
            Kind::Normal => "Normal".into(),
            Kind::Warning => "Warning".into(),
        }),
        reason: Some(reason.into()),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some(component.into()),
            host: None,
        }),
        reporting_component: Some(component.into()),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    match events.create(&PostParams::default(), &event).await {
        Err(error) if refusal::is_namespace_terminating(&error) => {
            debug!(
                component,
                object = name,
                "event not written: its namespace ends"
            );
        }
        Err(error) => {
            let error = refusal::text(&error);
            warn!(component, object = name, error, "event not written");
        }
        Ok(_) => {}
    }
}
