//! Bodies in `application/vnd.kubernetes.protobuf`, which typed clients such as `kubectl
//! create` send. They are turned into the JSON that the same client would have sent.
//!
//! `data/protobuf.json` has, for each message, its fields as
//! `[number, JSON name, cardinality, type]`. Cardinality: empty for a plain field, `p` for one
//! whose presence matters, `*` for a list, `m` for a map, `i` for a message whose fields
//! belong to the outer one. Types: `s` text, `i` integer, `b` boolean, `f` double, `y` bytes
//! (base64 in JSON), a message's name, or one of the types with a form of their own.

use std::{collections::HashMap, sync::OnceLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// Every body starts with this.
const MAGIC: &[u8] = b"k8s\0";
/// Messages in messages; the deepest real one (affinity terms in a pod template) has 12.
const MAX_DEPTH: usize = 32;

/// Why a body is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The prefix or envelope is not there.
    #[error("the body is not in the Kubernetes protobuf encoding")]
    Envelope,
    /// A field ends outside its message, or has an unknown wire type.
    #[error("the protobuf message is malformed")]
    Malformed,
    /// The kind is not served.
    #[error("no kind \"{kind}\" is registered for version \"{version}\"")]
    Kind {
        /// The apiVersion of the envelope.
        version: String,
        /// Its kind.
        kind: String,
    },
}

#[derive(Deserialize)]
struct FieldDef(u32, String, String, String);

#[derive(Deserialize)]
struct Table {
    kinds: HashMap<String, String>,
    types: HashMap<String, Vec<FieldDef>>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        serde_json::from_str(include_str!("../data/protobuf.json"))
            .expect("data/protobuf.json is checked by this module's tests")
    })
}

/// A value on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Splits the next field off a message.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u32, Wire<'a>)>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tag = varint(bytes)?;
    let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Malformed)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        1 => Wire::Number(fixed(bytes, 8)?),
        2 => {
            let len = usize::try_from(varint(bytes)?).map_err(|_| DecodeError::Malformed)?;
            let (value, rest) = bytes.split_at_checked(len).ok_or(DecodeError::Malformed)?;
            *bytes = rest;
            Wire::Bytes(value)
        }
        5 => Wire::Number(fixed(bytes, 4)?),
        _ => return Err(DecodeError::Malformed),
    };
    Ok(Some((number, wire)))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(DecodeError::Malformed)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Malformed)
}

fn fixed(bytes: &mut &[u8], len: usize) -> Result<u64, DecodeError> {
    let (value, rest) = bytes.split_at_checked(len).ok_or(DecodeError::Malformed)?;
    *bytes = rest;
    let value = value.iter().rev();
    Ok(value.fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Malformed)
}

/// A body as JSON.
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let mut unknown = body.strip_prefix(MAGIC).ok_or(DecodeError::Envelope)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    // runtime.Unknown: 1 type meta (1 apiVersion, 2 kind), 2 the object.
    while let Some((number, wire)) = next_field(&mut unknown)? {
        match (number, wire) {
            (1, Wire::Bytes(mut meta)) => {
                while let Some((number, wire)) = next_field(&mut meta)? {
                    match (number, wire) {
                        (1, Wire::Bytes(value)) => version = text(value)?,
                        (2, Wire::Bytes(value)) => kind = text(value)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(value)) => raw = value,
            _ => {}
        }
    }
    let name = table().kinds.get(&format!("{version}/{kind}"));
    let name = match name {
        Some(name) => name,
        // Delete options are sent under the version of what is deleted.
        None if kind == "DeleteOptions" => "meta.DeleteOptions",
        None => return Err(DecodeError::Kind { version, kind }),
    };
    let mut object = Map::new();
    message(name, raw, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn message(
    name: &str,
    mut bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::Malformed);
    }
    let fields = table().types.get(name).ok_or(DecodeError::Malformed)?;
    while let Some((number, wire)) = next_field(&mut bytes)? {
        // An unknown number is a field of a newer version.
        let Some(FieldDef(_, key, cardinality, of)) = fields.iter().find(|field| field.0 == number)
        else {
            continue;
        };
        match (cardinality.as_str(), wire) {
            ("i", Wire::Bytes(inner)) => message(of, inner, out, depth + 1)?,
            ("m", Wire::Bytes(entry)) => {
                let (key_text, value) = map_entry(of, entry, depth)?;
                let map = out
                    .entry(key.clone())
                    .or_insert_with(|| Value::Object(Map::new()));
                map[key_text] = value;
            }
            ("*", wire) => {
                let value = single(of, wire, depth)?;
                let list = out
                    .entry(key.clone())
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(value);
                }
            }
            (cardinality, wire) => {
                let value = single(of, wire, depth)?;
                // Plain fields are always sent; empty ones would not be in JSON.
                if cardinality == "p" || !is_empty(&value) {
                    out.insert(key.clone(), value);
                }
            }
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn map_entry(of: &str, mut entry: &[u8], depth: usize) -> Result<(String, Value), DecodeError> {
    let (mut key, mut value) = (String::new(), None);
    while let Some((number, wire)) = next_field(&mut entry)? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => value = Some(single(of, wire, depth)?),
            _ => {}
        }
    }
    let absent = || match of {
        "s" | "y" => Value::String(String::new()),
        _ => Value::Null,
    };
    Ok((key, value.unwrap_or_else(absent)))
}

fn single(of: &str, wire: Wire, depth: usize) -> Result<Value, DecodeError> {
    match (of, wire) {
        ("i", Wire::Number(number)) => Ok(number.cast_signed().into()),
        ("b", Wire::Number(number)) => Ok((number != 0).into()),
        ("f", Wire::Number(number)) => Ok(f64::from_bits(number).into()),
        ("s", Wire::Bytes(bytes)) => Ok(text(bytes)?.into()),
        ("y", Wire::Bytes(bytes)) => Ok(STANDARD.encode(bytes).into()),
        ("Time", Wire::Bytes(bytes)) => time(bytes, berth_api::meta::timestamp),
        ("MicroTime", Wire::Bytes(bytes)) => time(bytes, berth_api::meta::micro_timestamp),
        ("Quantity", Wire::Bytes(bytes)) => own_form(bytes, |_, wire| match wire {
            Wire::Bytes(value) => Ok(text(value)?.into()),
            Wire::Number(_) => Err(DecodeError::Malformed),
        }),
        ("RawExtension" | "FieldsV1", Wire::Bytes(bytes)) => {
            own_form(bytes, |_, wire| match wire {
                Wire::Bytes(json) => {
                    serde_json::from_slice(json).map_err(|_| DecodeError::Malformed)
                }
                Wire::Number(_) => Err(DecodeError::Malformed),
            })
        }
        ("IntOrString", Wire::Bytes(bytes)) => int_or_string(bytes),
        ("Strings", Wire::Bytes(bytes)) => strings(bytes),
        ("TypeMeta" | "Duration", _) => Ok(Value::Null),
        (name, Wire::Bytes(bytes)) => {
            let mut inner = Map::new();
            message(name, bytes, &mut inner, depth + 1)?;
            Ok(Value::Object(inner))
        }
        _ => Err(DecodeError::Malformed),
    }
}

/// A message of one field; null when the field is absent.
fn own_form(
    mut bytes: &[u8],
    read: impl Fn(u32, Wire) -> Result<Value, DecodeError>,
) -> Result<Value, DecodeError> {
    match next_field(&mut bytes)? {
        Some((number, wire)) => read(number, wire),
        None => Ok(Value::Null),
    }
}

/// Seconds (1) and nanoseconds (2); an empty message is the zero time, which JSON has as null.
fn time(mut bytes: &[u8], show: fn(DateTime<Utc>) -> String) -> Result<Value, DecodeError> {
    let (mut seconds, mut nanos, any) = (0_i64, 0_u32, !bytes.is_empty());
    while let Some((number, wire)) = next_field(&mut bytes)? {
        match (number, wire) {
            (1, Wire::Number(value)) => seconds = value.cast_signed(),
            (2, Wire::Number(value)) => nanos = u32::try_from(value).unwrap_or(0),
            _ => {}
        }
    }
    // Go's zero time is the year one.
    let at = DateTime::from_timestamp(seconds, nanos).filter(|_| any && seconds > -62_135_596_800);
    Ok(at.map_or(Value::Null, |at| show(at).into()))
}

/// 1 tells which: 0 the integer (2), 1 the text (3).
fn int_or_string(mut bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut number_value, mut text_value) = (false, 0_i64, String::new());
    while let Some((number, wire)) = next_field(&mut bytes)? {
        match (number, wire) {
            (1, Wire::Number(value)) => is_text = value == 1,
            (2, Wire::Number(value)) => number_value = value.cast_signed(),
            (3, Wire::Bytes(value)) => text_value = text(value)?,
            _ => {}
        }
    }
    Ok(if is_text {
        text_value.into()
    } else {
        number_value.into()
    })
}

fn strings(mut bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut list = Vec::new();
    while let Some((_, wire)) = next_field(&mut bytes)? {
        if let Wire::Bytes(value) = wire {
            list.push(Value::String(text(value)?));
        }
    }
    Ok(Value::Array(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A length-delimited field.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn body(version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
        let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, object)].concat()
    }

    #[test]
    fn a_config_map_becomes_json() {
        let metadata = [field(1, b"page"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"index.html"), field(2, b"hello")].concat();
        let object = [field(1, &metadata), field(2, &entry)].concat();
        let decoded = decode(&body("v1", "ConfigMap", &object)).unwrap();
        let expected = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "page"}, "data": {"index.html": "hello"},
        });
        assert_eq!(decoded, expected);
    }

    #[test]
    fn inline_messages_and_own_forms_are_flattened() {
        // Volume {name, VolumeSource {configMap(19) {LocalObjectReference {name}}}}
        let reference = field(1, &field(1, b"page"));
        let source = [vec![0x9a, 1], vec![8], reference].concat();
        let volume = [field(1, b"v"), field(2, &source)].concat();
        let object = field(2, &field(1, &volume));
        let decoded = decode(&body("v1", "Pod", &object)).unwrap();
        assert_eq!(
            decoded["spec"]["volumes"],
            json!([{"name": "v", "configMap": {"name": "page"}}])
        );
    }

    #[test]
    fn malformed_bodies_are_refused() {
        assert_eq!(decode(b"{}"), Err(DecodeError::Envelope));
        let cut = &body("v1", "ConfigMap", &field(1, b"xyz"))[..22];
        assert_eq!(decode(cut), Err(DecodeError::Malformed));
        let unknown = decode(&body("v1", "Nope", &[]));
        assert!(matches!(unknown, Err(DecodeError::Kind { .. })));
    }

    #[test]
    fn every_message_of_the_table_is_there() {
        let special = [
            "s",
            "i",
            "b",
            "f",
            "y",
            "Time",
            "MicroTime",
            "Quantity",
            "RawExtension",
            "FieldsV1",
            "IntOrString",
            "Strings",
            "TypeMeta",
            "Duration",
        ];
        for (name, fields) in &table().types {
            for FieldDef(number, key, _, of) in fields {
                let known = special.contains(&of.as_str()) || table().types.contains_key(of);
                assert!(known, "{name}: field {number} {key} of type {of}");
            }
        }
        assert!(
            table()
                .kinds
                .values()
                .all(|name| table().types.contains_key(name))
        );
    }
}
