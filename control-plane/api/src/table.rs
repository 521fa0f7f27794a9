//! `meta.k8s.io/v1` Tables: the columns that kubectl prints. All columns are
//! sent, those for `-o wide` with priority 1.

mod age;
mod cells;
mod pod;

use std::collections::HashMap;
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::gvk::Resource;

pub use age::{human_duration, since};

/// What each row carries of its object (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Include {
    /// `PartialObjectMetadata` (the default).
    #[default]
    Metadata,
    /// The whole object.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// Reads the query parameter.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Include::Metadata),
            "Object" => Some(Include::Object),
            "None" => Some(Include::None),
            _ => None,
        }
    }
}

/// The Table of some objects; `list_metadata` becomes its `metadata`.
pub fn table(
    resource: &Resource,
    objects: &[Value],
    list_metadata: &Value,
    include: Include,
    now: DateTime<Utc>,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|o| row(resource, o, include, now))
        .collect();
    let metadata = if list_metadata.is_object() {
        list_metadata.clone()
    } else {
        json!({})
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns(resource),
        "rows": rows,
    })
}

fn row(resource: &Resource, object: &Value, include: Include, now: DateTime<Utc>) -> Value {
    let mut row = json!({ "cells": cells::of(resource, object, now) });
    if let Some(conditions) = pod::row_conditions(resource, object) {
        row["conditions"] = conditions;
    }
    match include {
        Include::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
        }
        Include::Object => row["object"] = object.clone(),
        Include::None => row["object"] = Value::Null,
    }
    row
}

/// Column definitions; a resource without its own has name and creation time.
fn columns(resource: &Resource) -> Value {
    static COLUMNS: OnceLock<HashMap<String, Value>> = OnceLock::new();
    let all = COLUMNS.get_or_init(|| {
        let facts: Map<String, Value> = serde_json::from_str(include_str!("../data/tables.json"))
            .expect("data/tables.json is checked by this crate's tests");
        facts
            .into_iter()
            .map(|(key, mut columns)| {
                for column in columns.as_array_mut().into_iter().flatten() {
                    column["description"] = "".into();
                }
                (key, columns)
            })
            .collect()
    });
    let key = format!(
        "{}/{}/{}",
        resource.group, resource.version, resource.plural
    );
    all.get(&key).cloned().unwrap_or_else(|| {
        json!([
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
        ])
    })
}

#[cfg(test)]
mod tests;
