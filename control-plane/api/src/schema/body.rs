//! Bytes → JSON value, with the paths of keys that are given twice.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Json(String),
    /// Not YAML.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// A media type that holds neither.
    #[error("media type `{0}` is not decoded")]
    MediaType(String),
}

/// Reads a JSON or YAML body; the second part has the path of every key that
/// its object has twice (the last value wins).
pub fn decode_body(bytes: &[u8], content_type: &str) -> Result<(Value, Vec<String>), DecodeError> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let mut duplicates = Vec::new();
    let seed = Seed {
        path: String::new(),
        duplicates: &mut duplicates,
    };
    let value = match media {
        ""
        | "*/*"
        | "application/json"
        | "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" => {
            let mut from = serde_json::Deserializer::from_slice(bytes);
            let value = seed.deserialize(&mut from).map_err(json_error)?;
            from.end().map_err(json_error)?;
            value
        }
        "application/yaml" | "application/apply-patch+yaml" => seed
            .deserialize(serde_yaml_ng::Deserializer::from_slice(bytes))
            .map_err(|e| DecodeError::Yaml(e.to_string()))?,
        other => return Err(DecodeError::MediaType(other.to_owned())),
    };
    Ok((value, duplicates))
}

fn json_error(error: serde_json::Error) -> DecodeError {
    DecodeError::Json(if error.is_eof() {
        "unexpected end of JSON input".to_owned()
    } else {
        error.to_string()
    })
}

struct Seed<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let Seed { path, duplicates } = self;
        let mut list = Vec::new();
        loop {
            let seed = Seed {
                path: format!("{path}[{}]", list.len()),
                duplicates: &mut *duplicates,
            };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Seed { path, duplicates } = self;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let at = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            if map.contains_key(&key) {
                duplicates.push(at.clone());
            }
            let seed = Seed {
                path: at,
                duplicates: &mut *duplicates,
            };
            let value = entries.next_value_seed(seed)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Keys of YAML mappings may be numbers or booleans; JSON has texts only.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: de::Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_named() {
        let body = br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#;
        let (value, duplicates) = decode_body(body, "application/json").unwrap();
        assert_eq!(value, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(duplicates, ["b[0].c", "a"]);
        let (value, duplicates) =
            decode_body(b"a: 1\nb: {1: x}\na: 2\n", "application/yaml").unwrap();
        assert_eq!(value, json!({"a": 2, "b": {"1": "x"}}));
        assert_eq!(duplicates, ["a"]);
    }

    #[test]
    fn faults() {
        for (body, media, text) in [
            (
                "{",
                "application/json",
                "couldn't get version/kind; json parse error: unexpected end of JSON input",
            ),
            ("x", "text/plain", "media type `text/plain` is not decoded"),
        ] {
            assert_eq!(
                decode_body(body.as_bytes(), media).unwrap_err().to_string(),
                text
            );
        }
        assert!(decode_body(b"{} x", "application/json").is_err());
        assert!(decode_body(b"a: [", "application/yaml").is_err());
    }
}
