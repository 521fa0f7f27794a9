//! Probes and lifecycle handlers.

use serde_json::Value;

use super::super::field::FieldError;
use super::super::names;
use super::super::rules::{Faults, items, text};

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

pub(super) fn check_all(path: &str, container: &Value, faults: &mut Faults) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[name];
        if probe.is_null() {
            continue;
        }
        let path = format!("{path}.{name}");
        handler(&path, probe, faults);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            faults.non_negative(&format!("{path}.{field}"), &probe[field]);
        }
        let grace = &probe["terminationGracePeriodSeconds"];
        let at = format!("{path}.terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            if !grace.is_null() {
                faults.invalid(at, grace, "must not be set for readinessProbes");
            }
        } else {
            if grace.as_i64().is_some_and(|g| g <= 0) {
                faults.invalid(at, grace, "must be greater than 0");
            }
            if probe["successThreshold"].as_i64() != Some(1) {
                faults.invalid(
                    format!("{path}.successThreshold"),
                    &probe["successThreshold"],
                    "must be 1",
                );
            }
        }
    }
}

/// What a probe or hook does: exactly one thing.
pub(super) fn handler(path: &str, value: &Value, faults: &mut Faults) {
    let mut found = false;
    for kind in HANDLERS {
        let one = &value[kind];
        if one.is_null() {
            continue;
        }
        let path = format!("{path}.{kind}");
        if found {
            faults.forbidden(path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match kind {
            "exec" if one["command"].as_array().is_none_or(Vec::is_empty) => {
                faults.required(format!("{path}.command"), "");
            }
            "httpGet" => http_get(&path, one, faults),
            "tcpSocket" => faults.port_or_name(&format!("{path}.port"), &one["port"]),
            "grpc" => faults.port_or_name(&format!("{path}.port"), &one["port"]),
            _ => {}
        }
    }
    if !found {
        faults.required(path, "must specify a handler type");
    }
}

fn http_get(path: &str, get: &Value, faults: &mut Faults) {
    if text(get, "path").is_empty() {
        faults.required(format!("{path}.path"), "");
    }
    faults.port_or_name(&format!("{path}.port"), &get["port"]);
    let scheme = text(get, "scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        faults.add(FieldError::not_supported(
            format!("{path}.scheme"),
            scheme,
            &["HTTP", "HTTPS"],
        ));
    }
    for (_, header) in items(get, path, "httpHeaders") {
        let name = text(header, "name");
        let valid =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !valid {
            let why = names::regex_error(
                "a valid HTTP header must consist of alphanumeric characters or '-'",
                "[-A-Za-z0-9]+",
                &["X-Header-Name"],
            );
            faults.invalid(format!("{path}.httpHeaders"), &name.into(), &why);
        }
    }
}
