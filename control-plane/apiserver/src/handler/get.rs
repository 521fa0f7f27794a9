//! `get`: one object.

use berth_api::status::Status;
use http::Response;

use super::Call;
use crate::{
    object,
    response::{self, Body, Form},
};

/// Answers with the object of the path.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let entry = call.api.registry.entry(&call.target()).await?;
    match call.form()? {
        Form::Object => {
            let json = object::json(call.resource, &entry.value, entry.modified);
            Ok(response::bytes(200, "application/json", json))
        }
        _ => call.respond(200, object::of_entry(call.resource, &entry), &[]),
    }
}
