//! One REST verb a file. A handler decodes, calls, encodes.

mod create;
mod delete;
mod get;
mod list;
mod patch;
mod pod_action;
mod pod_stream;
mod review;
mod scale;
mod token_request;
mod update;
mod watch;

pub use create::put_new;
pub use pod_stream::{answer as stream, is_stream};

use std::sync::Arc;

use berth_api::{
    gvk::{Resource, Subresource},
    schema::FieldValidation,
    selector::{FieldSelector, LabelSelector},
    status::{self, Status},
};
use bytes::Bytes;
use http::{HeaderMap, Response, header};
use serde_json::Value;

use crate::{
    authn::User,
    registry::ObjectRef,
    request::{Attributes, Query},
    response::{self, Body, Form},
    server::Api,
};

/// An authorized request for a served resource.
pub struct Call {
    pub api: Arc<Api>,
    pub resource: &'static Resource,
    pub attributes: Attributes,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: User,
    pub body: Bytes,
}

/// Which objects a list or watch is about.
pub struct Selectors {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selectors {
    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches_object(object) && self.fields.matches(object)
    }
}

impl Call {
    /// The namespace of the objects: empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        if self.resource.namespaced {
            &self.attributes.namespace
        } else {
            ""
        }
    }

    /// The object named by the path.
    pub fn target(&self) -> ObjectRef<'_> {
        ObjectRef {
            resource: self.resource,
            namespace: self.namespace(),
            name: &self.attributes.name,
        }
    }

    /// Whether nothing may be written.
    pub fn dry_run(&self) -> Result<bool, Status> {
        let mut asked = false;
        for value in self.query.all("dryRun") {
            match value {
                "All" => asked = true,
                "" => {}
                other => {
                    return Err(status::bad_request(format!(
                        "dryRun: Unsupported value: \"{other}\": supported values: \"All\""
                    )));
                }
            }
        }
        Ok(asked)
    }

    /// What to do about unknown fields of the body.
    pub fn field_validation(&self) -> Result<FieldValidation, Status> {
        match self.query.text("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Strict" => Ok(FieldValidation::Strict),
            "Ignore" => Ok(FieldValidation::Ignore),
            other => Err(status::bad_request(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// The body's media type; JSON when none is given.
    pub fn content_type(&self) -> &str {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .filter(|text| !text.is_empty())
            .unwrap_or("application/json")
    }

    /// The form of the answer.
    pub fn form(&self) -> Result<Form, Status> {
        Form::of(&self.headers)
    }

    /// The selectors of a list, watch or deletecollection.
    pub fn selectors(&self) -> Result<Selectors, Status> {
        let labels = LabelSelector::parse(self.query.text("labelSelector"))
            .map_err(|error| status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(self.resource, self.query.text("fieldSelector"))
            .map_err(|error| status::bad_request(error.to_string()))?;
        Ok(Selectors { labels, fields })
    }

    /// Answers with one object in the form asked for.
    pub fn respond(
        &self,
        code: u16,
        object: Value,
        warnings: &[String],
    ) -> Result<Response<Body>, Status> {
        let include = self.query.text("includeObject");
        let rendered = self.form()?.render(self.resource, object, include);
        let mut response = response::json(code, &rendered);
        response::warn(&mut response, warnings);
        Ok(response)
    }
}

/// Answers a request for a resource itself.
pub async fn resource(call: &Call) -> Result<Response<Body>, Status> {
    match call.attributes.verb {
        "get" => get::answer(call).await,
        "list" => list::answer(call).await,
        "watch" => watch::answer(call).await,
        "create" => create::answer(call).await,
        "update" => update::answer(call).await,
        "patch" => patch::answer(call).await,
        "delete" => delete::answer(call).await,
        "deletecollection" => delete::collection(call).await,
        _ => Err(status::method_not_allowed_generic()),
    }
}

/// Answers a request for a subresource.
pub async fn subresource(
    call: &Call,
    subresource: &'static Subresource,
) -> Result<Response<Body>, Status> {
    match (subresource.name, call.attributes.verb) {
        ("status", "get") => get::answer(call).await,
        ("status" | "finalize", "update") => update::answer(call).await,
        ("status", "patch") => patch::answer(call).await,
        ("scale", _) => scale::answer(call).await,
        ("binding", "create") => pod_action::bind(call).await,
        ("eviction", "create") => pod_action::evict(call).await,
        ("token", "create") => token_request::answer(call).await,
        _ => Err(status::method_not_allowed_generic()),
    }
}
