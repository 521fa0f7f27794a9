//! How an object lies in the store, and how it gets its `resourceVersion` back.
//!
//! The value is a little-endian u32 `split`, then JSON with the value of
//! `metadata.resourceVersion` cut out: the version is the store's revision, which is known
//! only after the write. The text before `split` (counted in the JSON) plus the revision plus
//! the rest is the object, so that lists and watches copy bytes and parse nothing.

use std::sync::OnceLock;

use berth_api::{event, gvk::Resource, meta};
use berth_store::{Entry, Revision};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// A text that no object of a client can contain, because it is drawn at start.
fn slot() -> &'static str {
    static SLOT: OnceLock<String> = OnceLock::new();
    SLOT.get_or_init(|| uuid::Uuid::new_v4().simple().to_string())
}

/// The stored form of an object. Events are stored in their core `v1` shape.
pub fn encode(resource: &Resource, object: &Value) -> Bytes {
    let mut object = match resource.plural {
        "events" => event::to_core(object),
        _ => object.clone(),
    };
    meta::set(&mut object, "resourceVersion", slot());
    let json = object.to_string();
    let split = json.find(slot()).unwrap_or(json.len());
    let tail = json.get(split + slot().len()..).unwrap_or_default();
    let mut out = BytesMut::with_capacity(4 + json.len() - slot().len());
    out.put_u32_le(u32::try_from(split).unwrap_or(u32::MAX));
    out.extend_from_slice(&json.as_bytes()[..split]);
    out.extend_from_slice(tail.as_bytes());
    out.freeze()
}

/// Appends the object's JSON, with `revision` as its resourceVersion.
pub fn write_json(stored: &[u8], revision: Revision, out: &mut Vec<u8>) {
    let Some((split, json)) = stored.split_first_chunk::<4>() else {
        return;
    };
    let split = usize::try_from(u32::from_le_bytes(*split)).unwrap_or(json.len());
    let (head, tail) = json.split_at(split.min(json.len()));
    out.extend_from_slice(head);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(tail);
}

/// The JSON of a stored object in the shape of `resource`.
pub fn json(resource: &Resource, stored: &[u8], revision: Revision) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.len() + 16);
    if has_stored_shape(resource) {
        write_json(stored, revision, &mut out);
    } else {
        out = value(resource, stored, revision).to_string().into_bytes();
    }
    out
}

/// Whether the stored JSON is what clients of this resource get.
pub fn has_stored_shape(resource: &Resource) -> bool {
    resource.group != "events.k8s.io"
}

/// A stored object as a value, in the shape of `resource`.
pub fn value(resource: &Resource, stored: &[u8], revision: Revision) -> Value {
    let mut json = Vec::with_capacity(stored.len() + 16);
    write_json(stored, revision, &mut json);
    let object = serde_json::from_slice(&json).unwrap_or_default();
    if has_stored_shape(resource) {
        object
    } else {
        event::to_events_v1(&object)
    }
}

/// The object of a store entry.
pub fn of_entry(resource: &Resource, entry: &Entry) -> Value {
    value(resource, &entry.value, entry.modified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::gvk;
    use serde_json::json;

    #[test]
    fn the_revision_comes_back_in_its_place() {
        let pods = gvk::find("", "v1", "pods").unwrap();
        let object = json!({"metadata": {"name": "a", "resourceVersion": "old"}});
        let stored = encode(pods, &object);
        let read = value(pods, &stored, 42);
        assert_eq!(read["metadata"]["resourceVersion"], "42");
        assert_eq!(read["metadata"]["name"], "a");
        assert_eq!(encode(pods, &read), stored);
    }
}
