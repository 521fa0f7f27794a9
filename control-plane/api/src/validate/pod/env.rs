//! Environment variables and where they come from.

use serde_json::Value;

use super::super::field::FieldError;
use super::super::names;
use super::super::rules::{Faults, items, text};

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];

pub(super) fn check(path: &str, container: &Value, faults: &mut Faults) {
    for (path, variable) in items(container, path, "env") {
        let name = text(variable, "name");
        if name.is_empty() {
            faults.required(format!("{path}.name"), "");
        } else {
            faults.grammar(&format!("{path}.name"), name, names::env_name(name));
        }
        if !variable["valueFrom"].is_null() {
            value_from(&format!("{path}.valueFrom"), variable, faults);
        }
    }
    for (path, source) in items(container, path, "envFrom") {
        env_from(&path, source, faults);
    }
}

fn value_from(path: &str, variable: &Value, faults: &mut Faults) {
    let from = &variable["valueFrom"];
    let count = SOURCES.iter().filter(|s| !from[**s].is_null()).count();
    if !from["fieldRef"].is_null() {
        field_ref(
            &format!("{path}.fieldRef"),
            &from["fieldRef"],
            &FIELDS,
            faults,
        );
    }
    if !from["resourceFieldRef"].is_null() {
        resource_ref(
            &format!("{path}.resourceFieldRef"),
            &from["resourceFieldRef"],
            false,
            faults,
        );
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        let one = &from[source];
        if one.is_null() {
            continue;
        }
        let name = text(one, "name");
        if !name.is_empty() {
            faults.grammar(
                &format!("{path}.{source}.name"),
                name,
                names::dns1123_subdomain(name),
            );
        }
        let key = text(one, "key");
        if key.is_empty() {
            faults.required(format!("{path}.{source}.key"), "");
        } else {
            faults.grammar(&format!("{path}.{source}.key"), key, names::config_key(key));
        }
    }
    let why = if count == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !text(variable, "value").is_empty() {
        "may not be specified when `value` is not empty"
    } else if count > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    faults.invalid(path, &"".into(), why);
}

/// A `fieldRef`; labels and annotations may be named one by one.
pub(super) fn field_ref(path: &str, value: &Value, known: &[&str], faults: &mut Faults) {
    let field = text(value, "fieldPath");
    if text(value, "apiVersion").is_empty() {
        faults.required(format!("{path}.apiVersion"), "");
        return;
    }
    if field.is_empty() {
        faults.required(format!("{path}.fieldPath"), "");
        return;
    }
    let at = format!("{path}.fieldPath");
    let subscript = field.strip_suffix("']").and_then(|f| f.split_once("['"));
    match subscript {
        Some(("metadata.labels", key)) => {
            faults.grammar(path, key, names::qualified_name(key));
        }
        Some(("metadata.annotations", key)) => {
            faults.grammar(path, key, names::qualified_name(&key.to_lowercase()));
        }
        Some((whole, _)) => faults.invalid(path, &whole.into(), "does not support subscript"),
        None if known.contains(&field) => {}
        None if is_field(field) => faults.add(FieldError::not_supported(at, field, known)),
        None => faults.invalid(
            at,
            &field.into(),
            &format!("error converting fieldPath: field label not supported: {field}"),
        ),
    }
}

/// The fields a fieldPath can name at all, whoever uses it.
fn is_field(field: &str) -> bool {
    FIELDS.contains(&field)
        || matches!(
            field,
            "metadata.annotations"
                | "metadata.labels"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "status.phase"
        )
}

/// A `resourceFieldRef`.
pub(super) fn resource_ref(path: &str, value: &Value, volume: bool, faults: &mut Faults) {
    let resource = text(value, "resource");
    if volume && text(value, "containerName").is_empty() {
        faults.required(format!("{path}.containerName"), "");
    } else if resource.is_empty() {
        faults.required(format!("{path}.resource"), "");
    } else {
        let huge = resource.starts_with("limits.hugepages-")
            || resource.starts_with("requests.hugepages-");
        if !huge {
            faults.one_of(&format!("{path}.resource"), resource, &RESOURCES);
        }
    }
}

fn env_from(path: &str, source: &Value, faults: &mut Faults) {
    let prefix = text(source, "prefix");
    if !prefix.is_empty() {
        faults.grammar(&format!("{path}.prefix"), prefix, names::env_name(prefix));
    }
    let mut count = 0;
    for kind in ["configMapRef", "secretRef"] {
        let one = &source[kind];
        if one.is_null() {
            continue;
        }
        count += 1;
        let name = text(one, "name");
        if name.is_empty() {
            faults.required(format!("{path}.{kind}.name"), "");
        } else {
            faults.grammar(
                &format!("{path}.{kind}.name"),
                name,
                names::dns1123_subdomain(name),
            );
        }
    }
    match count {
        0 => faults.invalid(
            path,
            &"".into(),
            "must specify one of: `configMapRef` or `secretRef`",
        ),
        1 => {}
        _ => faults.invalid(
            path,
            &"".into(),
            "may not have more than one field specified at a time",
        ),
    }
}
