//! JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch.

mod order;
mod strategic;

use serde_json::Value;

use crate::gvk::Resource;
use crate::schema;
use crate::status::{self, Status};

pub use strategic::strategic_merge;

/// More operations than this in one JSON patch are refused.
const MAX_OPERATIONS: usize = 10_000;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed (400).
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object (422).
    #[error("{0}")]
    Unfit(String),
    /// The patch has too many operations (413).
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// A list of the patch cannot be merged (500, as the stock server answers).
    #[error("{0}")]
    Unmergeable(String),
    /// Server-side apply is not served yet (415).
    #[error("server-side apply is not supported: send a strategic merge, merge or JSON patch")]
    Apply,
}

impl PatchError {
    /// The answer to the client.
    pub fn to_status(&self) -> Status {
        match self {
            PatchError::Malformed(text) => status::bad_request(text),
            PatchError::Unfit(text) => status::unprocessable(text),
            PatchError::TooMany(_) => status::too_many_operations(&self.to_string()),
            PatchError::Unmergeable(text) => status::unexpected(text),
            PatchError::Apply => status::unsupported_patch(&self.to_string()),
        }
    }
}

/// The patch types by media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml`
    Apply,
}

/// The media types served, as the text of a 415 lists them.
pub const MEDIA_TYPES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

impl PatchType {
    /// The type for a `Content-Type`, parameters ignored.
    pub fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(PatchType::Json),
            "application/merge-patch+json" => Some(PatchType::Merge),
            "application/strategic-merge-patch+json" => Some(PatchType::Strategic),
            "application/apply-patch+yaml" => Some(PatchType::Apply),
            _ => None,
        }
    }
}

/// Applies a patch to an object of `resource`. The result is not yet checked
/// against the type: pass it to `schema::decode_value`.
pub fn apply(
    resource: &Resource,
    patch_type: PatchType,
    original: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    match patch_type {
        PatchType::Json => json_patch(original, patch),
        PatchType::Merge => merge_patch(original, patch),
        PatchType::Strategic => strategic_merge(schema::type_of(resource), original, patch),
        PatchType::Apply => Err(PatchError::Apply),
    }
}

/// Applies the operations of an RFC 6902 patch, all or none.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooMany(count));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    let mut object = original.clone();
    json_patch::patch(&mut object, &patch).map_err(|e| PatchError::Unfit(e.to_string()))?;
    Ok(object)
}

/// Applies an RFC 7386 patch: null removes, objects merge, all else replaces.
pub fn merge_patch(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".to_owned()));
    }
    let mut object = original.clone();
    json_patch::merge(&mut object, patch);
    Ok(object)
}

/// The answer when a patched object no longer decodes; `patch` is its text.
pub fn patched_invalid(patch: &str, fault: &str) -> Status {
    let error = crate::validate::FieldError::invalid("patch", patch, fault);
    status::invalid_patch(&error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::find;
    use serde_json::json;

    #[test]
    fn json_patches() {
        let object = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}});
        let patch = json!([
            {"op": "test", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": "/spec/replicas", "value": 3},
            {"op": "remove", "path": "/metadata/labels/a"},
            {"op": "add", "path": "/metadata/labels/x~1y", "value": "z"},
        ]);
        assert_eq!(
            json_patch(&object, &patch).unwrap(),
            json!({"metadata": {"labels": {"x/y": "z"}}, "spec": {"replicas": 3}})
        );
        let failing = json!([{"op": "remove", "path": "/nothing"}]);
        assert!(matches!(
            json_patch(&object, &failing),
            Err(PatchError::Unfit(_))
        ));
        assert_eq!(
            json_patch(&object, &failing).unwrap_err().to_status().code,
            422
        );
        assert!(matches!(
            json_patch(&object, &json!({})),
            Err(PatchError::Malformed(_))
        ));
    }

    #[test]
    fn merge_patches() {
        let object = json!({"a": {"b": 1, "c": 2}, "l": [1]});
        let patch = json!({"a": {"b": null, "d": {"x": null}}, "l": [2]});
        assert_eq!(
            merge_patch(&object, &patch).unwrap(),
            json!({"a": {"c": 2, "d": {}}, "l": [2]})
        );
        assert_eq!(
            merge_patch(&object, &json!([]))
                .unwrap_err()
                .to_status()
                .code,
            400
        );
    }

    #[test]
    fn types_and_texts() {
        assert_eq!(
            PatchType::of("application/merge-patch+json; charset=utf-8"),
            Some(PatchType::Merge)
        );
        assert_eq!(PatchType::of("application/json"), None);
        let pods = find("", "v1", "pods").unwrap();
        let error = apply(pods, PatchType::Apply, &json!({}), &json!({})).unwrap_err();
        assert_eq!(error.to_status().code, 415);
        let status = patched_invalid("{}", "strict decoding error: unknown field \"spec.foo\"");
        assert_eq!(
            status.message,
            " \"\" is invalid: patch: Invalid value: \"{}\": strict decoding error: unknown field \"spec.foo\""
        );
    }
}
