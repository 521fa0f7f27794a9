//! `patch`: changes parts of an object; the server repeats it when another writer came
//! between.

use berth_api::{
    meta,
    patch::{self, PatchError, PatchType},
    schema::{self, FieldValidation},
    status::{self, Status},
};
use http::Response;
use serde_json::Value;

use super::{Call, update};
use crate::{registry::Outcome, response::Body};

/// Answers with the object as stored.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let patch_type = PatchType::of(call.content_type())
        .ok_or_else(|| status::unsupported_media_type(&patch::MEDIA_TYPES))?;
    if patch_type == PatchType::Apply {
        return Err(PatchError::Apply.to_status());
    }
    let patch: Value = serde_json::from_slice(&call.body)
        .map_err(|error| status::bad_request(format!("error decoding patch: {error}")))?;
    let validation = call.field_validation()?;
    let dry_run = call.dry_run()?;
    let mut warnings = Vec::new();
    let outcome = call
        .api
        .registry
        .update(&call.target(), dry_run, |old| {
            let patched = patch::apply(call.resource, patch_type, old, &patch)
                .map_err(|error| error.to_status())?;
            let (mut new, found) = decode(call, patched, validation)?;
            warnings = found;
            update::check_version(call.resource, &new, old)?;
            check_identity(call, &new)?;
            update::replace(call, &mut new, old)?;
            Ok(update::next(call.resource, new))
        })
        .await?;
    let (Outcome::Stored(object) | Outcome::Deleted(object)) = outcome;
    call.respond(200, object, &warnings)
}

/// Checks the patched object against its type.
fn decode(
    call: &Call,
    patched: Value,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let text = patched.to_string();
    schema::decode_value(call.resource, patched, validation)
        .map_err(|fault| patch::patched_invalid(&text, &fault))
}

fn check_identity(call: &Call, new: &Value) -> Result<(), Status> {
    if meta::name(new) == call.attributes.name {
        return Ok(());
    }
    Err(status::bad_request(format!(
        "the name of the object ({}) does not match the name on the URL ({})",
        meta::name(new),
        call.attributes.name
    )))
}
