//! `update`: replaces an object, or its status.

use berth_api::{
    gvk::Resource,
    meta, schema,
    status::{self, Status},
    strategy, validate,
};
use http::Response;
use serde_json::Value;

use super::{Call, create, delete};
use crate::{
    admission,
    registry::{Next, Outcome},
    response::Body,
};

/// Answers with the object as stored.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let (object, warnings) = schema::decode(
        call.resource,
        &call.body,
        call.content_type(),
        call.field_validation()?,
    )?;
    fit(call, &object)?;
    let dry_run = call.dry_run()?;
    let target = call.target();
    if may_create(call) && call.api.registry.find(&target).await?.is_none() {
        let created = create::create(call, object, dry_run).await?;
        return call.respond(201, created, &warnings);
    }
    let outcome = call
        .api
        .registry
        .update(&target, dry_run, |old| {
            let mut new = object.clone();
            check_version(call.resource, &new, old)?;
            replace(call, &mut new, old)?;
            Ok(next(call.resource, new))
        })
        .await?;
    let (Outcome::Stored(object) | Outcome::Deleted(object)) = outcome;
    call.respond(200, object, &warnings)
}

/// Kinds whose update creates what does not exist yet (stock `AllowCreateOnUpdate`).
fn may_create(call: &Call) -> bool {
    call.attributes.subresource.is_empty()
        && matches!(call.resource.plural, "leases" | "events" | "services")
}

/// The object in the body must be the one of the path.
fn fit(call: &Call, object: &Value) -> Result<(), Status> {
    let name = meta::name(object);
    if name != call.attributes.name {
        return Err(status::bad_request(if name.is_empty() {
            "name must be provided".to_owned()
        } else {
            format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.attributes.name
            )
        }));
    }
    let namespace = meta::namespace(object);
    if !namespace.is_empty() && namespace != call.namespace() {
        return Err(status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Optimistic concurrency: a resourceVersion and a uid in the new object must be the present
/// ones.
pub fn check_version(resource: &Resource, new: &Value, old: &Value) -> Result<(), Status> {
    let version = meta::resource_version(new);
    let name = meta::name(old);
    if !matches!(version, "" | "0") && version != meta::resource_version(old) {
        return Err(status::stale(resource, name));
    }
    let uid = meta::uid(new);
    if !uid.is_empty() && uid != meta::uid(old) {
        let text = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(old)
        );
        return Err(status::conflict(resource, name, &text));
    }
    Ok(())
}

/// Makes `new` what is stored in place of `old`: defaults, server-owned fields, rules.
pub fn replace(call: &Call, new: &mut Value, old: &Value) -> Result<(), Status> {
    let resource = call.resource;
    if resource.namespaced {
        meta::set(new, "namespace", call.namespace());
    }
    berth_api::defaults::apply(resource, new);
    let errors = match call.attributes.subresource.as_str() {
        "status" => {
            strategy::prepare_status(resource, new, old);
            validate::update_status(resource, new, old)
        }
        "finalize" => {
            strategy::prepare_finalize(new, old);
            Vec::new()
        }
        _ => {
            strategy::prepare_update(resource, new, old);
            admission::check_update(call, new, old)?;
            validate::update(resource, new, old)
        }
    };
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid(resource, meta::name(old), &errors))
    }
}

/// What to do with the new state: an object whose deletion has begun goes when nothing holds
/// it any more.
pub fn next(resource: &'static Resource, new: Value) -> Next {
    if meta::is_deleting(&new) && delete::nothing_holds(resource, &new) {
        return Next::Delete(delete::released(resource, &new));
    }
    Next::Put(new)
}
