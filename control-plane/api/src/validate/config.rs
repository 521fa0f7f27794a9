//! ConfigMaps and Secrets.

use serde_json::Value;

use super::field::FieldError;
use super::names;
use super::rules::{Faults, entries, text};

/// The most that the values of one object may add up to, in bytes.
const DATA_LIMIT: usize = 1024 * 1024;

/// Bytes that a base64 text stands for.
fn decoded_len(text: &str) -> usize {
    let text = text.trim_end_matches('=');
    text.len() * 3 / 4
}

pub(super) fn config_map(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in entries(&new["data"]) {
        faults.grammar(&format!("data[{key}]"), key, names::config_key(key));
        if new["binaryData"].get(key).is_some() {
            let text = "duplicate of key present in binaryData";
            faults.add(FieldError::invalid(
                format!("data[{key}]"),
                key.as_str(),
                text,
            ));
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(&new["binaryData"]) {
        faults.grammar(&format!("binaryData[{key}]"), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > DATA_LIMIT {
        faults.add(FieldError::too_long("", DATA_LIMIT));
    }
    if let Some(old) = old {
        immutable(new, old, &["data", "binaryData"], faults);
    }
}

pub(super) fn secret(new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in entries(&new["data"]) {
        faults.grammar(&format!("data[{key}]"), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > DATA_LIMIT {
        faults.add(FieldError::too_long("data", DATA_LIMIT));
    }
    let wanted: &[&str] = match text(new, "type") {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in wanted {
        if new["data"].get(key).is_none() {
            faults.required(format!("data[{key}]"), "");
        }
    }
    if text(new, "type") == "kubernetes.io/service-account-token"
        && text(
            &new["metadata"]["annotations"],
            "kubernetes.io/service-account.name",
        )
        .is_empty()
    {
        faults.required(
            "metadata.annotations[kubernetes.io/service-account.name]",
            "",
        );
    }
    if let Some(old) = old {
        faults.immutable("type", &new["type"], &old["type"]);
        immutable(new, old, &["data"], faults);
    }
}

/// Once `immutable` is set, neither it nor the data changes.
fn immutable(new: &Value, old: &Value, fields: &[&str], faults: &mut Faults) {
    if old["immutable"] != true {
        return;
    }
    let text = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        faults.forbidden("immutable", text);
    }
    for field in fields {
        let same = entries(&new[*field]).eq(entries(&old[*field]));
        if !same {
            faults.forbidden(*field, text);
        }
    }
}
