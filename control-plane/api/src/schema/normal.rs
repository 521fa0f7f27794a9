//! The stored form of an object: what the stock server's own types would write
//! back. Unknown fields, nulls and empty optional values go; quantities and
//! times become canonical; objects held by value appear as `{}`.

use serde_json::{Map, Value};

use super::{Field, Kind, Resolved, Type, is_micro_time, resolve, type_of};
use crate::gvk::Resource;
use crate::meta;
use crate::quantity::Quantity;

/// Brings an object of `resource` to its stored form.
pub fn normalise(resource: &Resource, object: &mut Value) {
    normalise_type(type_of(resource), object);
}

/// The same for an object of any type.
pub fn normalise_type(of: &Type, object: &mut Value) {
    if let Value::Object(map) = object {
        fields(of, map);
    }
}

fn fields(of: &Type, map: &mut Map<String, Value>) {
    map.retain(|name, value| !value.is_null() && of.field(name).is_some());
    for field in &of.fields {
        if let Some(value) = map.get_mut(field.name) {
            one(&field.kind, value);
            if is_dropped(field, value) {
                map.remove(field.name);
            }
        }
        if !map.contains_key(field.name)
            && let Some(value) = written_when_absent(field)
        {
            map.insert(field.name.to_owned(), value);
        }
    }
}

/// Whether an empty value is the same as none.
fn is_dropped(field: &Field, value: &Value) -> bool {
    if field.keep {
        return false;
    }
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.kind, Kind::Map(_)),
        Value::String(text) => text.is_empty() && !field.pointer,
        Value::Number(number) => number.as_i64() == Some(0) && !field.pointer && is_scalar(field),
        Value::Bool(value) => !value && !field.pointer,
        Value::Null => true,
    }
}

fn is_scalar(field: &Field) -> bool {
    matches!(field.kind, Kind::I32 | Kind::I64 | Kind::F64)
}

/// Objects held by value and required scalars are written even when absent.
fn written_when_absent(field: &Field) -> Option<Value> {
    match resolve(&field.kind) {
        Resolved::Object(of) => {
            let by_value = field.default.as_ref().is_some_and(Value::is_object);
            by_value.then(|| {
                let mut map = Map::new();
                fields(of, &mut map);
                Value::Object(map)
            })
        }
        Resolved::Plain(kind) => {
            let keep = field.keep && !field.pointer;
            let zero = match kind {
                Kind::String => Value::String(String::new()),
                Kind::Bool => Value::Bool(false),
                Kind::I32 | Kind::I64 => 0.into(),
                _ => return None,
            };
            keep.then_some(zero)
        }
    }
}

fn one(kind: &Kind, value: &mut Value) {
    match resolve(kind) {
        Resolved::Object(of) => {
            if let Value::Object(map) = value {
                fields(of, map);
            }
        }
        Resolved::Plain(Kind::List(item)) => {
            for value in value.as_array_mut().into_iter().flatten() {
                one(item, value);
                if value.is_null() {
                    *value = zero_item(item);
                }
            }
        }
        Resolved::Plain(Kind::Map(item)) => {
            for (_, value) in value.as_object_mut().into_iter().flatten() {
                one(item, value);
                if value.is_null() {
                    *value = zero_item(item);
                }
            }
        }
        Resolved::Plain(Kind::Quantity) => {
            if let Ok(quantity) = Quantity::from_value(value) {
                *value = Value::String(quantity.to_string());
            }
        }
        Resolved::Plain(Kind::Time) => {
            if let Some(at) = value.as_str().and_then(meta::parse_time) {
                *value = Value::String(if is_micro_time(kind) {
                    meta::micro_timestamp(at)
                } else {
                    meta::timestamp(at)
                });
            }
        }
        Resolved::Plain(_) => {}
    }
}

/// What a null stands for inside a list or map.
fn zero_item(kind: &Kind) -> Value {
    match resolve(kind) {
        Resolved::Object(of) => {
            let mut map = Map::new();
            fields(of, &mut map);
            Value::Object(map)
        }
        Resolved::Plain(Kind::String | Kind::Bytes) => Value::String(String::new()),
        Resolved::Plain(Kind::I32 | Kind::I64 | Kind::F64) => 0.into(),
        Resolved::Plain(Kind::Bool) => Value::Bool(false),
        Resolved::Plain(Kind::Quantity) => Value::String("0".to_owned()),
        Resolved::Plain(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::find;
    use serde_json::json;

    #[test]
    fn pod() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "foo": 1,
            "metadata": {"name": "a", "creationTimestamp": null, "labels": {"a": null},
                "annotations": {}},
            "spec": {"containers": [{
                "name": "c", "image": "", "args": [], "stdin": false,
                "resources": {"requests": {"cpu": 1, "memory": "1024Mi"}},
                "securityContext": {"runAsUser": 0},
            }], "volumes": [{"name": "v", "emptyDir": {}}], "nodeName": ""},
        });
        normalise(find("", "v1", "pods").unwrap(), &mut pod);
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "labels": {"a": ""}},
                "spec": {"containers": [{
                    "name": "c",
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                    "securityContext": {"runAsUser": 0},
                }], "volumes": [{"name": "v", "emptyDir": {}}]},
                "status": {},
            })
        );
    }

    #[test]
    fn times_and_empty_objects() {
        let mut lease =
            json!({"spec": {"renewTime": "2026-01-01T00:00:00+01:00", "leaseTransitions": 0}});
        normalise(
            find("coordination.k8s.io", "v1", "leases").unwrap(),
            &mut lease,
        );
        assert_eq!(
            lease["spec"],
            json!({"renewTime": "2025-12-31T23:00:00.000000Z", "leaseTransitions": 0})
        );
        let mut service = json!({"spec": {}});
        normalise(find("", "v1", "services").unwrap(), &mut service);
        assert_eq!(service["status"], json!({"loadBalancer": {}}));
    }
}
