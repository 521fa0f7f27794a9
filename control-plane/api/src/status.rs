//! `metav1.Status` with the texts and codes of the stock API server.

use serde_json::{Value, json};

use crate::gvk::Resource;
use crate::validate::FieldError;

/// A failed request, as the client will see it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine readable reason (`metav1.StatusReason`); may be empty.
    pub reason: &'static str,
    /// What kubectl prints.
    pub message: String,
    /// `details` of the Status, when there are any.
    pub details: Option<Value>,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Status {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let mut details = serde_json::Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !resource.group.is_empty() {
            details.insert("group".into(), resource.group.into());
        }
        details.insert("kind".into(), resource.plural.into());
        self.details = Some(Value::Object(details));
        self
    }

    /// The response body.
    pub fn to_value(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": self.message,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            body["details"] = details.clone();
        }
        body["code"] = self.code.into();
        body
    }

    /// Seconds the client is told to wait before it tries again.
    pub fn retry_after(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }
}

/// The object does not exist: `pods "x" not found`.
pub fn not_found(resource: &Resource, name: &str) -> Status {
    let text = format!("{} \"{name}\" not found", resource.group_resource());
    Status::new(404, "NotFound", text).about(resource, name)
}

/// The path names nothing that is served.
pub fn path_not_found() -> Status {
    let mut status = Status::new(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    status.details = Some(json!({}));
    status
}

/// The name is taken: `pods "x" already exists`.
pub fn already_exists(resource: &Resource, name: &str) -> Status {
    let text = format!("{} \"{name}\" already exists", resource.group_resource());
    Status::new(409, "AlreadyExists", text).about(resource, name)
}

/// generateName met a taken name several times over; the client may try again.
pub fn generate_name_conflict(resource: &Resource, name: &str) -> Status {
    let text = format!(
        "{} \"{name}\" already exists, the server was not able to generate a unique name for the object",
        resource.group_resource()
    );
    let mut status = Status::new(409, "AlreadyExists", text).about(resource, name);
    if let Some(details) = status.details.as_mut() {
        details["retryAfterSeconds"] = 1.into();
    }
    status
}

/// A write lost against another; `why` is the text after the object's name.
pub fn conflict(resource: &Resource, name: &str, why: &str) -> Status {
    let text = format!(
        "Operation cannot be fulfilled on {} \"{name}\": {why}",
        resource.group_resource()
    );
    Status::new(409, "Conflict", text).about(resource, name)
}

/// The resourceVersion sent is no longer the object's.
pub fn stale(resource: &Resource, name: &str) -> Status {
    conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// The object breaks rules of its kind; one cause per error.
pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Status {
    let text = format!(
        "{} \"{name}\" is invalid: {}",
        resource.group_kind(),
        crate::validate::aggregate(errors)
    );
    let mut status = Status::new(422, "Invalid", text).about(resource, name);
    let causes: Vec<Value> = errors.iter().map(FieldError::to_cause).collect();
    if let Some(details) = status.details.as_mut() {
        details["kind"] = resource.kind.into();
        details["causes"] = Value::Array(causes);
    }
    status
}

/// What the authorizer was asked, for the text of a refusal.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// User name.
    pub user: &'a str,
    /// Verb, for example `list`.
    pub verb: &'a str,
    /// API group; empty for core.
    pub group: &'a str,
    /// Resource, with the subresource after a slash.
    pub resource: &'a str,
    /// Namespace; empty for the cluster scope.
    pub namespace: &'a str,
    /// Object name; may be empty.
    pub name: &'a str,
    /// Added after the text as `: reason` when not empty.
    pub why: &'a str,
}

/// The authorizer refused a resource request.
pub fn forbidden(attempt: &Attempt) -> Status {
    let Attempt {
        user,
        verb,
        group,
        resource,
        namespace,
        name,
        why,
    } = *attempt;
    let plural = resource.split('/').next().unwrap_or(resource);
    let qualified = if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    };
    let object = if name.is_empty() {
        qualified
    } else {
        format!("{qualified} \"{name}\"")
    };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{namespace}\"")
    };
    let mut text = format!(
        "{object} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}"
    );
    if !why.is_empty() {
        text.push_str(": ");
        text.push_str(why);
    }
    let mut details = serde_json::Map::new();
    if !name.is_empty() {
        details.insert("name".into(), name.into());
    }
    if !group.is_empty() {
        details.insert("group".into(), group.into());
    }
    details.insert("kind".into(), plural.into());
    let mut status = Status::new(403, "Forbidden", text);
    status.details = Some(Value::Object(details));
    status
}

/// The authorizer refused a request for a path that is no resource.
pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Status {
    let text = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
    let mut status = Status::new(403, "Forbidden", text);
    status.details = Some(json!({}));
    status
}

/// Admission or a registry rule refused: `pods "x" is forbidden: why`.
pub fn refused(resource: &Resource, name: &str, why: &str) -> Status {
    let text = if name.is_empty() {
        format!("{} is forbidden: {why}", resource.group_resource())
    } else {
        format!(
            "{} \"{name}\" is forbidden: {why}",
            resource.group_resource()
        )
    };
    Status::new(403, "Forbidden", text).about(resource, name)
}

/// An object in a namespace that is being deleted.
pub fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Status {
    let mut status = refused(
        resource,
        name,
        &format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ),
    );
    if let Some(details) = status.details.as_mut() {
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
    }
    status
}

/// No credentials, or credentials that prove nothing.
pub fn unauthorized() -> Status {
    Status::new(401, "Unauthorized", "Unauthorized")
}

/// The request cannot be understood.
pub fn bad_request(message: impl Into<String>) -> Status {
    Status::new(400, "BadRequest", message)
}

/// The resourceVersion asked for has been compacted (410, reason Expired).
pub fn expired(message: impl Into<String>) -> Status {
    Status::new(410, "Expired", message)
}

/// A watch or list from a compacted revision.
pub fn too_old(requested: u64, oldest: u64) -> Status {
    expired(format!("too old resource version: {requested} ({oldest})"))
}

/// A continue token that no longer works.
pub fn continue_expired() -> Status {
    expired(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
    )
}

/// The verb does not exist on this resource.
pub fn method_not_allowed(resource: &Resource, verb: &str) -> Status {
    let mut status = Status::new(
        405,
        "MethodNotAllowed",
        format!(
            "{verb} is not supported on resources of kind \"{}\"",
            resource.group_resource()
        ),
    );
    let mut details = serde_json::Map::new();
    if !resource.group.is_empty() {
        details.insert("group".into(), resource.group.into());
    }
    details.insert("kind".into(), resource.plural.into());
    status.details = Some(Value::Object(details));
    status
}

/// The HTTP method does not fit the path.
pub fn method_not_allowed_generic() -> Status {
    let mut status = Status::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    );
    status.details = Some(json!({}));
    status
}

/// The body's media type is not among `accepted`.
pub fn unsupported_media_type(accepted: &[&str]) -> Status {
    Status::new(
        415,
        "UnsupportedMediaType",
        format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        ),
    )
}

/// None of the media types the client accepts can be produced.
pub fn not_acceptable(accepted: &[&str]) -> Status {
    Status::new(
        406,
        "NotAcceptable",
        format!(
            "only the following media types are accepted: {}",
            accepted.join(", ")
        ),
    )
}

/// The body is larger than the server takes.
pub fn request_too_large(limit: usize) -> Status {
    Status::new(
        413,
        "RequestEntityTooLarge",
        format!("Request entity too large: limit is {limit}"),
    )
}

/// Too much at once; try again after `seconds`.
pub fn too_many_requests(message: impl Into<String>, seconds: u64) -> Status {
    let mut status = Status::new(429, "TooManyRequests", message);
    status.details = Some(json!({ "retryAfterSeconds": seconds }));
    status
}

/// Something broke on the server's side.
pub fn internal(message: impl std::fmt::Display) -> Status {
    let mut status = Status::new(
        500,
        "InternalError",
        format!("Internal error occurred: {message}"),
    );
    status.details = Some(json!({ "causes": [{ "message": message.to_string() }] }));
    status
}

/// A part of the server is not reachable now.
pub fn service_unavailable(message: impl Into<String>) -> Status {
    Status::new(503, "ServiceUnavailable", message)
}

/// The server gave up after its time limit.
pub fn timeout(message: impl std::fmt::Display) -> Status {
    Status::new(504, "Timeout", format!("Timeout: {message}"))
}

/// The body of a successful delete, which answers with a Status.
pub fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name });
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    details["kind"] = resource.plural.into();
    if !uid.is_empty() {
        details["uid"] = uid.into();
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Success", "details": details,
    })
}

/// A plain success, as binding and eviction answer.
pub fn created() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Success", "code": 201,
    })
}

/// A patch that does not fit the object (422), as the stock server words it:
/// the reason is in the causes.
pub fn unprocessable(fault: &str) -> Status {
    let mut status = Status::new(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    );
    status.details = Some(json!({
        "causes": [{ "reason": "UnexpectedServerResponse", "message": fault }],
    }));
    status
}

/// A JSON patch with too many operations (413).
pub fn too_many_operations(message: &str) -> Status {
    Status::new(413, "RequestEntityTooLarge", message)
}

/// A plain error that no rule names (500).
pub fn unexpected(message: &str) -> Status {
    Status::new(500, "", message)
}

/// A patch type that is not served (415).
pub fn unsupported_patch(message: &str) -> Status {
    Status::new(415, "UnsupportedMediaType", message)
}

/// A patched object that no longer decodes (422).
pub fn invalid_patch(error: &FieldError) -> Status {
    let mut status = Status::new(422, "Invalid", format!(" \"\" is invalid: {error}"));
    status.details = Some(json!({ "causes": [error.to_cause()] }));
    status
}
