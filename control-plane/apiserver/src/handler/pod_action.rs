//! `pods/binding` and `pods/eviction`: posted actions on a pod.

use berth_api::{
    meta,
    schema::{self, FieldValidation},
    status::{self, Status},
};
use chrono::Utc;
use http::Response;
use serde_json::{Value, json};

use super::{Call, delete};
use crate::{
    registry::Next,
    response::{self, Body},
};

/// Assigns a pod to a node, once.
pub async fn bind(call: &Call) -> Result<Response<Body>, Status> {
    let (binding, _) = schema::decode_kind(
        "v1",
        "Binding",
        &call.body,
        call.content_type(),
        FieldValidation::Ignore,
    )?;
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if node.is_empty() || !matches!(kind, "" | "Node") {
        return Err(status::bad_request("target must name a Node"));
    }
    let dry_run = call.dry_run()?;
    let registry = &call.api.registry;
    registry
        .update(&call.target(), dry_run, |pod| {
            may_bind(call, pod, &binding)?;
            Ok(Next::Put(bound(pod, node, &binding)))
        })
        .await?;
    Ok(response::json(201, &status::created()))
}

fn may_bind(call: &Call, pod: &Value, binding: &Value) -> Result<(), Status> {
    let name = meta::name(pod);
    let uid = meta::uid(binding);
    let assigned = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let gates = pod["spec"]["schedulingGates"].as_array();
    let why = if !uid.is_empty() && uid != meta::uid(pod) {
        format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(pod)
        )
    } else if meta::is_deleting(pod) {
        format!("pod {name} is being deleted, cannot be assigned to a host")
    } else if !assigned.is_empty() {
        format!("pod {name} is already assigned to node \"{assigned}\"")
    } else if gates.is_some_and(|gates| !gates.is_empty()) {
        format!("pod {name} has non-empty .spec.schedulingGates")
    } else {
        return Ok(());
    };
    let mut status = status::conflict(call.resource, name, &why);
    status.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
    if let Some(details) = status.details.as_mut() {
        details["kind"] = "pods/binding".into();
    }
    Err(status)
}

/// The pod with its node, the binding's annotations and the condition PodScheduled.
fn bound(pod: &Value, node: &str, binding: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = node.into();
    let annotations = binding["metadata"]["annotations"].as_object();
    for (key, value) in annotations.into_iter().flatten() {
        pod["metadata"]["annotations"][key] = value.clone();
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": meta::timestamp(Utc::now()),
    });
    match pod["status"]["conditions"].as_array_mut() {
        Some(conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(condition);
        }
        None => pod["status"]["conditions"] = json!([condition]),
    }
    pod
}

/// Deletes a pod on behalf of who drains its node. No disruption budgets exist in this
/// version, so none is violated.
pub async fn evict(call: &Call) -> Result<Response<Body>, Status> {
    let (eviction, _) = schema::decode_kind(
        "policy/v1",
        "Eviction",
        &call.body,
        call.content_type(),
        FieldValidation::Ignore,
    )?;
    let name = meta::name(&eviction);
    if !name.is_empty() && name != call.attributes.name {
        return Err(status::bad_request(format!(
            "name in URL does not match name in Eviction object: {name}"
        )));
    }
    delete::with_options(call, &eviction["deleteOptions"]).await?;
    Ok(response::json(201, &status::created()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_pod_is_scheduled() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {
            "conditions": [{"type": "PodScheduled", "status": "False"}],
        }});
        let pod = bound(
            &pod,
            "n1",
            &json!({"metadata": {"annotations": {"a": "b"}}}),
        );
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        assert_eq!(pod["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
    }
}
