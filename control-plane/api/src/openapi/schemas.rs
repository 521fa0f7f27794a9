//! Types as JSON schemas, with the `x-kubernetes-*` extensions.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Flavor;
use crate::gvk::{Resource, join_group_version};
use crate::schema::{Field, Kind, ListType, Type, full_name, named, of_kind, type_of};

const META: &str = "apimachinery.pkg.apis.meta.v1";

/// The schemas of all types that the resources' documents mention.
pub(super) fn of(resources: &[&'static Resource], flavor: Flavor) -> Map<String, Value> {
    let mut found = BTreeSet::new();
    for name in ["Status", "DeleteOptions", "Patch", "WatchEvent"] {
        collect(named(&format!("{META}.{name}")), &mut found);
    }
    for resource in resources {
        let of = type_of(resource);
        collect(Some(of), &mut found);
        collect(named(&format!("{}List", of.name)), &mut found);
        for sub in &resource.subresources {
            collect(
                of_kind(&join_group_version(sub.group, sub.version), sub.kind),
                &mut found,
            );
        }
    }
    found
        .into_iter()
        .filter_map(named)
        .map(|of| (of.full_name(), schema(of, flavor)))
        .collect()
}

/// Adds a type and all it refers to.
fn collect(of: Option<&'static Type>, found: &mut BTreeSet<&'static str>) {
    let Some(of) = of else { return };
    if !found.insert(of.name) {
        return;
    }
    for field in &of.fields {
        let mut kind = &field.kind;
        while let Kind::List(item) | Kind::Map(item) = kind {
            kind = item;
        }
        if let Kind::Ref(name) = kind {
            collect(named(name), found);
        }
    }
}

fn schema(of: &Type, flavor: Flavor) -> Value {
    let mut out = match &of.is {
        Some(kind) => plain(kind, flavor),
        None => json!({"type": "object"}),
    };
    if !of.fields.is_empty() {
        let properties: Map<String, Value> = of
            .fields
            .iter()
            .map(|f| (f.name.to_owned(), property(f, flavor)))
            .collect();
        out["properties"] = Value::Object(properties);
        let required: Vec<&str> = of
            .fields
            .iter()
            .filter(|f| f.required)
            .map(|f| f.name)
            .collect();
        if !required.is_empty() {
            out["required"] = required.into();
        }
    }
    let kinds: Vec<Value> = of
        .kinds
        .iter()
        .filter_map(|kind| group_version_kind(kind))
        .collect();
    if !kinds.is_empty() {
        out["x-kubernetes-group-version-kind"] = kinds.into();
    }
    if of.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    if let Some(unions) = of.unions.and_then(|json| serde_json::from_str(json).ok()) {
        out["x-kubernetes-unions"] = unions;
    }
    out
}

fn group_version_kind(text: &str) -> Option<Value> {
    let mut parts = text.splitn(3, '/');
    let (group, version, kind) = (parts.next()?, parts.next()?, parts.next()?);
    Some(json!({"group": group, "version": version, "kind": kind}))
}

fn property(field: &Field, flavor: Flavor) -> Value {
    let mut out = plain(&field.kind, flavor);
    let is_ref = matches!(field.kind, Kind::Ref(_));
    if flavor == Flavor::V3 && is_ref {
        out = json!({ "allOf": [out] });
    }
    if flavor == Flavor::V3 || !is_ref {
        if let Some(default) = &field.default {
            out["default"] = default.clone();
        }
        if let Some(values) = &field.values {
            out["enum"] = values.clone();
        }
        if let Some(values) = &field.item_values {
            out["items"]["enum"] = values.clone();
        }
    }
    extensions(field, &mut out);
    out
}

fn extensions(field: &Field, out: &mut Value) {
    if let Some(list) = field.list {
        out["x-kubernetes-list-type"] = match list {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        }
        .into();
    }
    if !field.keys.is_empty() {
        out["x-kubernetes-list-map-keys"] = field.keys.clone().into();
    }
    if field.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    if let Some(key) = field.merge_key {
        out["x-kubernetes-patch-merge-key"] = key.into();
    }
    let strategy = match (field.merge, field.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return,
    };
    out["x-kubernetes-patch-strategy"] = strategy.into();
}

/// A reference to a type of the document.
pub(super) fn reference(name: &str, flavor: Flavor) -> Value {
    let at = match flavor {
        Flavor::V2 => "#/definitions/",
        Flavor::V3 => "#/components/schemas/",
    };
    json!({"$ref": format!("{at}{}", full_name(name))})
}

fn plain(kind: &Kind, flavor: Flavor) -> Value {
    let v3 = flavor == Flavor::V3;
    match kind {
        Kind::String => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::I32 => json!({"type": "integer", "format": "int32"}),
        Kind::I64 => json!({"type": "integer", "format": "int64"}),
        Kind::F64 => json!({"type": "number", "format": "double"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::IntOrString if v3 => json!({
            "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}],
        }),
        Kind::IntOrString => json!({"type": "string", "format": "int-or-string"}),
        Kind::Quantity if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Kind::Quantity => json!({"type": "string"}),
        Kind::Any => json!({"type": "object"}),
        Kind::Ref(name) => reference(name, flavor),
        Kind::List(item) => json!({"type": "array", "items": plain(item, flavor)}),
        Kind::Map(item) => json!({"type": "object", "additionalProperties": plain(item, flavor)}),
    }
}
