//! Containers: names, images, ports, mounts.

use serde_json::Value;

use super::super::field::FieldError;
use super::super::names;
use super::super::rules::{Faults, Unique, items, text};
use super::volume::Volumes;
use super::{env, probe, resources, security};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// All containers of a spec.
pub(super) fn check_all(path: &str, spec: &Value, volumes: &Volumes, faults: &mut Faults) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        faults.required(format!("{path}.containers"), "");
    }
    let mut seen = Unique::default();
    let mut host_ports = Vec::new();
    for (path, container) in items(spec, path, "containers") {
        check(&path, container, volumes, faults);
        unique(&path, container, &mut seen, faults);
        lifecycle(&path, container, faults);
        check_host_ports(&path, container, &mut host_ports, faults);
        if !container["restartPolicy"].is_null() && container["restartPolicyRules"].is_null() {
            let policy = text(container, "restartPolicy");
            faults.one_of(
                &format!("{path}.restartPolicy"),
                policy,
                &["Always", "OnFailure", "Never"],
            );
        }
    }
    for (path, container) in items(spec, path, "initContainers") {
        check(&path, container, volumes, faults);
        unique(&path, container, &mut seen, faults);
        if container["restartPolicy"] == "Always" {
            lifecycle(&path, container, faults);
            continue;
        }
        for field in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if !container[field].is_null() {
                faults.forbidden(
                    format!("{path}.{field}"),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
    }
    if spec["ephemeralContainers"]
        .as_array()
        .is_some_and(|l| !l.is_empty())
    {
        faults.forbidden(
            format!("{path}.ephemeralContainers"),
            "cannot be set on create",
        );
    }
}

fn unique<'a>(path: &str, container: &'a Value, seen: &mut Unique<'a>, faults: &mut Faults) {
    let name = text(container, "name");
    if !name.is_empty() && !seen.insert(name) {
        faults.add(FieldError::duplicate(format!("{path}.name"), name));
    }
}

fn check(path: &str, container: &Value, volumes: &Volumes, faults: &mut Faults) {
    let name = text(container, "name");
    if name.is_empty() {
        faults.required(format!("{path}.name"), "");
    } else {
        faults.grammar(&format!("{path}.name"), name, names::dns1123_label(name));
    }
    let image = text(container, "image");
    if image.is_empty() {
        faults.required(format!("{path}.image"), "");
    } else if image.trim() != image {
        faults.invalid(
            format!("{path}.image"),
            &image.into(),
            "must not have leading or trailing whitespace",
        );
    }
    faults.required_one_of(
        &format!("{path}.terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
    );
    ports(path, container, faults);
    env::check(path, container, faults);
    mounts(path, container, volumes, faults);
    faults.required_one_of(
        &format!("{path}.imagePullPolicy"),
        text(container, "imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    resources::check(
        &format!("{path}.resources"),
        &container["resources"],
        faults,
    );
    security::container(
        &format!("{path}.securityContext"),
        &container["securityContext"],
        faults,
    );
}

/// Hooks and probes, which init containers that end do not have.
fn lifecycle(path: &str, container: &Value, faults: &mut Faults) {
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            probe::handler(&format!("{path}.lifecycle.{hook}"), handler, faults);
        }
    }
    probe::check_all(path, container, faults);
}

fn ports(path: &str, container: &Value, faults: &mut Faults) {
    let mut seen = Unique::default();
    for (path, port) in items(container, path, "ports") {
        let name = text(port, "name");
        if !name.is_empty() {
            let texts = names::port_name(name);
            let valid = texts.is_empty();
            faults.grammar(&format!("{path}.name"), name, texts);
            if valid && !seen.insert(name) {
                faults.add(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        match port["containerPort"].as_i64().unwrap_or_default() {
            0 => faults.required(format!("{path}.containerPort"), ""),
            number => faults.port(&format!("{path}.containerPort"), number),
        }
        let host = port["hostPort"].as_i64().unwrap_or_default();
        if host != 0 {
            faults.port(&format!("{path}.hostPort"), host);
        }
        faults.required_one_of(
            &format!("{path}.protocol"),
            text(port, "protocol"),
            &PROTOCOLS,
        );
    }
}

/// Two containers cannot have one port of the host.
fn check_host_ports(path: &str, container: &Value, seen: &mut Vec<String>, faults: &mut Faults) {
    for (path, port) in items(container, path, "ports") {
        let host = port["hostPort"].as_i64().unwrap_or_default();
        if host == 0 {
            continue;
        }
        let key = format!("{}/{}/{host}", text(port, "protocol"), text(port, "hostIP"));
        if seen.contains(&key) {
            faults.add(FieldError::duplicate(
                format!("{path}.hostPort"),
                key.as_str(),
            ));
        } else {
            seen.push(key);
        }
    }
}

fn mounts(path: &str, container: &Value, volumes: &Volumes, faults: &mut Faults) {
    let mut seen = Unique::default();
    for (path, mount) in items(container, path, "volumeMounts") {
        let name = text(mount, "name");
        if name.is_empty() {
            faults.required(format!("{path}.name"), "");
        }
        if !volumes.has(name) {
            faults.add(FieldError::not_found(format!("{path}.name"), name));
        }
        let at = text(mount, "mountPath");
        if at.is_empty() {
            faults.required(format!("{path}.mountPath"), "");
        }
        if !seen.insert(at) {
            faults.invalid(format!("{path}.mountPath"), &at.into(), "must be unique");
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub.is_empty() {
            faults.local_path(&format!("{path}.subPath"), sub);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                faults.invalid(
                    format!("{path}.subPathExpr"),
                    &expression.into(),
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            faults.local_path(&format!("{path}.subPathExpr"), expression);
        }
        propagation(&path, container, mount, faults);
    }
}

fn propagation(path: &str, container: &Value, mount: &Value, faults: &mut Faults) {
    let Some(mode) = mount["mountPropagation"].as_str() else {
        return;
    };
    let path = format!("{path}.mountPropagation");
    faults.one_of(&path, mode, &["Bidirectional", "HostToContainer", "None"]);
    if mode == "Bidirectional" && container["securityContext"]["privileged"] != true {
        faults.forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}
