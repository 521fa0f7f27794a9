//! `ObjectMeta` as plain JSON: names, generated suffixes, timestamps, owners.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

/// The letters of generated names: no vowels and no look-alikes, so that a
/// suffix neither reads as a word nor is mistyped.
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of the generated suffix.
pub const SUFFIX_LEN: usize = 5;

/// The longest prefix that generateName keeps: 63 less the suffix.
pub const GENERATE_NAME_MAX: usize = 63 - SUFFIX_LEN;

/// A name from `generateName` and five random bytes.
pub fn generate_name(base: &str, random: [u8; SUFFIX_LEN]) -> String {
    let mut end = base.len().min(GENERATE_NAME_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.extend(
        random
            .iter()
            .map(|b| SUFFIX_ALPHABET[usize::from(*b) % SUFFIX_ALPHABET.len()] as char),
    );
    name
}

/// `metav1.Time`: whole seconds, `Z`.
pub fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `metav1.MicroTime`: six digits, `Z`.
pub fn micro_timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Reads either kind of timestamp.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|t| t.with_timezone(&Utc))
}

/// `metadata.name`, or empty.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`, or empty.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.generateName`, or empty.
pub fn generate_name_base(object: &Value) -> &str {
    text(object, "generateName")
}

/// `metadata.uid`, or empty.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`, or empty.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// Whether deletion has begun.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Sets one field of `metadata`, making `metadata` where it lacks.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(serde_json::Map::new());
    }
    object["metadata"][field] = value.into();
}

/// Removes one field of `metadata`.
pub fn unset(object: &mut Value, field: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove(field);
    }
}

/// The owner reference with `controller: true`, when there is one.
pub fn controller_of(object: &Value) -> Option<&Value> {
    object["metadata"]["ownerReferences"]
        .as_array()?
        .iter()
        .find(|owner| owner["controller"] == true)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generated_names_keep_to_63_bytes() {
        assert_eq!(generate_name("web-", [0, 1, 26, 27, 28]), "web-bc9bc");
        let long = "a".repeat(80);
        assert_eq!(generate_name(&long, [0; 5]).len(), 63);
        assert_eq!(generate_name(&"é".repeat(40), [0; 5]).len(), 58 + 5);
    }

    #[test]
    fn metadata_is_made_on_set() {
        let mut object = json!({});
        set(&mut object, "uid", "u");
        assert_eq!(uid(&object), "u");
        unset(&mut object, "uid");
        assert_eq!(object, json!({"metadata": {}}));
    }

    #[test]
    fn times() {
        let at = parse_time("2026-01-02T03:04:05.123456Z").unwrap();
        assert_eq!(timestamp(at), "2026-01-02T03:04:05Z");
        assert_eq!(micro_timestamp(at), "2026-01-02T03:04:05.123456Z");
    }
}
