//! The `scale` subresource: replicas of a workload as `autoscaling/v1` Scale.

use berth_api::{
    meta,
    patch::{self, PatchType},
    schema::{self, FieldValidation},
    selector::LabelSelector,
    status::{self, Status},
    strategy,
    validate::FieldError,
};
use http::Response;
use serde_json::{Value, json};

use super::{Call, update};
use crate::{
    registry::{Next, Outcome},
    response::{self, Body},
};

/// Answers get, update and patch of a scale.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let target = call.target();
    let registry = &call.api.registry;
    if call.attributes.verb == "get" {
        return Ok(response::json(
            200,
            &scale_of(&registry.get(&target).await?),
        ));
    }
    let dry_run = call.dry_run()?;
    let change = Change::of(call)?;
    let outcome = registry
        .update(&target, dry_run, |old| {
            let scale = change.apply(&scale_of(old))?;
            update::check_version(call.resource, &scale, old)?;
            let replicas = replicas_of(call, &scale)?;
            let mut new = old.clone();
            new["spec"]["replicas"] = replicas.into();
            strategy::prepare_update(call.resource, &mut new, old);
            Ok(Next::Put(new))
        })
        .await?;
    let (Outcome::Stored(object) | Outcome::Deleted(object)) = outcome;
    Ok(response::json(200, &scale_of(&object)))
}

/// A new Scale, or a patch of the present one.
enum Change {
    Replace(Value),
    Patch(PatchType, Value),
}

impl Change {
    fn of(call: &Call) -> Result<Self, Status> {
        if call.attributes.verb == "update" {
            let validation = call.field_validation()?;
            let content_type = call.content_type();
            let (scale, _) = schema::decode_kind(
                "autoscaling/v1",
                "Scale",
                &call.body,
                content_type,
                validation,
            )?;
            return Ok(Self::Replace(scale));
        }
        let patch_type = PatchType::of(call.content_type())
            .ok_or_else(|| status::unsupported_media_type(&patch::MEDIA_TYPES))?;
        let body = serde_json::from_slice(&call.body)
            .map_err(|error| status::bad_request(format!("error decoding patch: {error}")))?;
        Ok(Self::Patch(patch_type, body))
    }

    fn apply(&self, scale: &Value) -> Result<Value, Status> {
        let (patch_type, body) = match self {
            Self::Replace(scale) => return Ok(scale.clone()),
            Self::Patch(patch_type, body) => (*patch_type, body),
        };
        let patched = match patch_type {
            PatchType::Json => patch::json_patch(scale, body),
            // A Scale has no lists: both kinds of merge are one.
            PatchType::Merge | PatchType::Strategic => patch::merge_patch(scale, body),
            PatchType::Apply => Err(patch::PatchError::Apply),
        };
        let patched = patched.map_err(|error| error.to_status())?;
        let text = patched.to_string();
        let (scale, _) = schema::decode_kind(
            "autoscaling/v1",
            "Scale",
            text.as_bytes(),
            "application/json",
            FieldValidation::Ignore,
        )?;
        Ok(scale)
    }
}

fn replicas_of(call: &Call, scale: &Value) -> Result<i64, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas >= 0 {
        return Ok(replicas);
    }
    let error = FieldError::invalid(
        "spec.replicas",
        replicas,
        "must be greater than or equal to 0",
    );
    Err(status::invalid(
        call.resource,
        &call.attributes.name,
        &[error],
    ))
}

fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta::name(object), "namespace": meta::namespace(object),
            "uid": meta::uid(object), "resourceVersion": meta::resource_version(object),
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {},
        "status": { "replicas": object["status"]["replicas"].as_i64().unwrap_or(0) },
    });
    if let Some(replicas) = object["spec"]["replicas"].as_i64() {
        scale["spec"]["replicas"] = replicas.into();
    }
    if let Ok(selector) = LabelSelector::from_value(&object["spec"]["selector"]) {
        scale["status"]["selector"] = selector.to_string().into();
    }
    scale
}
