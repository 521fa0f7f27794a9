//! Security contexts of pods and containers.

use serde_json::Value;

use super::super::field::FieldError;
use super::super::names;
use super::super::rules::{Faults, Unique, items, text};

/// The highest user or group id.
const MAX_ID: i64 = i32::MAX as i64;

pub(super) fn pod(path: &str, context: &Value, faults: &mut Faults) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(&format!("{path}.{field}"), &context[field], faults);
    }
    for (path, group) in items(context, path, "supplementalGroups") {
        id(&path, group, faults);
    }
    seccomp(
        &format!("{path}.seccompProfile"),
        &context["seccompProfile"],
        faults,
    );
    if let Some(policy) = context["fsGroupChangePolicy"].as_str() {
        faults.one_of(
            &format!("{path}.fsGroupChangePolicy"),
            policy,
            &["Always", "OnRootMismatch"],
        );
    }
    let mut seen = Unique::default();
    for (path, sysctl) in items(context, path, "sysctls") {
        let name = text(sysctl, "name");
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_./".contains(&b);
        let at = format!("{path}.name");
        if name.is_empty() {
            faults.required(at, "");
        } else if !name.bytes().all(known) || name.len() > 253 {
            faults.invalid(
                at,
                &name.into(),
                "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if !seen.insert(name) {
            faults.add(FieldError::duplicate(at, name));
        }
    }
}

pub(super) fn container(path: &str, context: &Value, faults: &mut Faults) {
    for field in ["runAsUser", "runAsGroup"] {
        id(&format!("{path}.{field}"), &context[field], faults);
    }
    seccomp(
        &format!("{path}.seccompProfile"),
        &context["seccompProfile"],
        faults,
    );
    if let Some(kind) = context["procMount"].as_str() {
        faults.one_of(&format!("{path}.procMount"), kind, &["Default", "Unmasked"]);
    }
    if context["allowPrivilegeEscalation"] != false {
        return;
    }
    if context["privileged"] == true {
        faults.invalid(
            path,
            context,
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    let added = context["capabilities"]["add"].as_array();
    if added.is_some_and(|list| list.iter().any(|c| c == "CAP_SYS_ADMIN")) {
        faults.invalid(
            path,
            context,
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        );
    }
}

fn id(path: &str, value: &Value, faults: &mut Faults) {
    if value.as_i64().is_some_and(|n| !(0..=MAX_ID).contains(&n)) {
        faults.invalid(path, value, &names::inclusive_range(0, MAX_ID));
    }
}

fn seccomp(path: &str, profile: &Value, faults: &mut Faults) {
    if profile.is_null() {
        return;
    }
    let local = text(profile, "localhostProfile");
    faults.required_one_of(
        &format!("{path}.type"),
        text(profile, "type"),
        &["Localhost", "RuntimeDefault", "Unconfined"],
    );
    let at = format!("{path}.localhostProfile");
    if profile["type"] == "Localhost" {
        if local.is_empty() {
            faults.required(at, "must be set when seccomp type is Localhost");
        } else {
            faults.local_path(&at, local);
        }
    } else if !profile["localhostProfile"].is_null() {
        faults.invalid(
            at,
            &profile["localhostProfile"],
            "can only be set when seccomp type is Localhost",
        );
    }
}
