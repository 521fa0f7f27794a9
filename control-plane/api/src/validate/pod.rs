//! Pods and pod specs.

mod container;
mod env;
mod probe;
mod resources;
mod scheduling;
mod security;
mod update;
mod volume;

use serde_json::Value;

use super::field::FieldError;
use super::names;
use super::rules::{Faults, items, text};
use volume::Volumes;

pub(super) use update::{update, update_status};

/// A new Pod.
pub(super) fn create(pod: &Value, faults: &mut Faults) {
    validate_spec_into("spec", &pod["spec"], faults);
}

/// The faults of a pod spec at `path` (`spec`, `spec.template.spec`).
pub fn validate_spec(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut faults = Faults::default();
    validate_spec_into(path, spec, &mut faults);
    faults.list
}

/// The faults of a Binding.
pub fn binding(binding: &Value) -> Vec<FieldError> {
    let mut faults = Faults::default();
    let kind = text(&binding["target"], "kind");
    if !kind.is_empty() && kind != "Node" {
        faults.add(FieldError::not_supported(
            "target.kind",
            kind,
            &["Node", "<empty>"],
        ));
    }
    if text(&binding["target"], "name").is_empty() {
        faults.required("target.name", "");
    }
    faults.list
}

pub(super) fn validate_spec_into(path: &str, spec: &Value, faults: &mut Faults) {
    let grace = &spec["terminationGracePeriodSeconds"];
    match grace.as_i64() {
        None => faults.required(format!("{path}.terminationGracePeriodSeconds"), ""),
        Some(_) => faults.non_negative(&format!("{path}.terminationGracePeriodSeconds"), grace),
    }
    let volumes = Volumes::check(path, spec, faults);
    container::check_all(path, spec, &volumes, faults);
    let policy = text(spec, "restartPolicy");
    faults.required_one_of(
        &format!("{path}.restartPolicy"),
        policy,
        &["Always", "OnFailure", "Never"],
    );
    dns(path, spec, faults);
    host_network(path, spec, faults);
    security::pod(
        &format!("{path}.securityContext"),
        &spec["securityContext"],
        faults,
    );
    scheduling::check(path, spec, faults);
    names_of(path, spec, faults);
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline
        .as_i64()
        .is_some_and(|d| !(1..=i64::from(i32::MAX)).contains(&d))
    {
        let why = names::inclusive_range(1, i32::MAX.into());
        faults.invalid(format!("{path}.activeDeadlineSeconds"), deadline, &why);
    }
    for (path, alias) in items(spec, path, "hostAliases") {
        let ip = text(alias, "ip");
        if ip.parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.invalid(format!("{path}.ip"), &ip.into(), why);
        }
        for (path, name) in items(alias, &path, "hostnames") {
            let name = name.as_str().unwrap_or_default();
            faults.grammar(&path, name, names::dns1123_subdomain(name));
        }
    }
}

/// Names of other objects and of the pod in DNS.
fn names_of(path: &str, spec: &Value, faults: &mut Faults) {
    for (field, label) in [
        ("serviceAccountName", false),
        ("nodeName", false),
        ("priorityClassName", false),
        ("runtimeClassName", false),
        ("hostname", true),
        ("subdomain", true),
    ] {
        let name = text(spec, field);
        if !name.is_empty() {
            let grammar = if label {
                names::dns1123_label
            } else {
                names::dns1123_subdomain
            };
            faults.grammar(&format!("{path}.{field}"), name, grammar(name));
        }
    }
}

fn dns(path: &str, spec: &Value, faults: &mut Faults) {
    let policy = text(spec, "dnsPolicy");
    faults.required_one_of(
        &format!("{path}.dnsPolicy"),
        policy,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    let config = &spec["dnsConfig"];
    let at = format!("{path}.dnsConfig");
    let servers = config["nameservers"].as_array().map_or(0, Vec::len);
    if policy == "None" && config.is_null() {
        faults.required(at, "must provide `dnsConfig` when `dnsPolicy` is None");
        return;
    }
    if policy == "None" && servers == 0 {
        faults.required(
            format!("{at}.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
        return;
    }
    if servers > 3 {
        faults.invalid(
            format!("{at}.nameservers"),
            &config["nameservers"],
            "must not have more than 3 nameservers",
        );
    }
    for (path, server) in items(config, &at, "nameservers") {
        if server
            .as_str()
            .is_some_and(|s| s.parse::<std::net::IpAddr>().is_err())
        {
            faults.invalid(
                path,
                server,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
    if config["searches"].as_array().is_some_and(|l| l.len() > 32) {
        faults.invalid(
            format!("{at}.searches"),
            &config["searches"],
            "must not have more than 32 search paths",
        );
    }
    for (path, option) in items(config, &at, "options") {
        if text(option, "name").is_empty() {
            faults.required(path, "must not be empty");
        }
    }
}

fn host_network(path: &str, spec: &Value, faults: &mut Faults) {
    if spec["hostNetwork"] != true {
        return;
    }
    for list in ["containers", "initContainers"] {
        for (path, container) in items(spec, path, list) {
            for (path, port) in items(container, &path, "ports") {
                if port["hostPort"] != port["containerPort"] {
                    faults.invalid(
                        format!("{path}.hostPort"),
                        &port["hostPort"],
                        "must match `containerPort` when `hostNetwork` is true",
                    );
                }
            }
        }
    }
}
