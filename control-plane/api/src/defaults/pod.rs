//! Defaults of pods and pod templates.

use serde_json::{Map, Value, json};

use super::{is_unset, items_mut, object_mut, object_or_new, set_default, set_nonzero};
use crate::quantity::Quantity;

/// Defaults of a Pod: those of its spec, and some that templates do not get.
pub(super) fn apply(pod: &mut Value) {
    let Some(spec) = object_or_new(pod, "spec") else {
        return;
    };
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        set_default(spec, "enableServiceLinks", true);
    }
    if spec["hostNetwork"] == true {
        for list in ["containers", "initContainers"] {
            for container in items_mut(spec, list) {
                host_ports(container);
            }
        }
    }
    apply_spec(spec);
}

/// Defaults of a pod spec, as pods and templates have it.
pub fn apply_spec(spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else {
        return;
    };
    set_default(map, "dnsPolicy", "ClusterFirst");
    set_default(map, "restartPolicy", "Always");
    set_default(map, "securityContext", json!({}));
    set_default(map, "terminationGracePeriodSeconds", 30);
    set_default(map, "schedulerName", "default-scheduler");
    let account = [map.get("serviceAccountName"), map.get("serviceAccount")]
        .into_iter()
        .flatten()
        .find(|v| !is_unset(Some(v)))
        .cloned();
    if let Some(account) = account {
        map.insert("serviceAccount".to_owned(), account.clone());
        map.insert("serviceAccountName".to_owned(), account);
    }
    if let Some(overhead) = map.get_mut("overhead") {
        round_up(overhead);
    }
    for one in items_mut(spec, "volumes") {
        volume(one);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for one in items_mut(spec, list) {
            container(one);
        }
    }
    if let Some(resources) = spec.get_mut("resources") {
        round_resources(resources);
    }
}

/// `Always` for the tag `latest`, named or implied; otherwise `IfNotPresent`.
pub fn image_pull_policy(image: &str) -> &'static str {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, false), |(n, _)| (n, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn container(container: &mut Value) {
    if let Some(resources) = container.get_mut("resources") {
        round_resources(resources);
    }
    if let Some(map) = container.as_object_mut() {
        let policy =
            image_pull_policy(map.get("image").and_then(Value::as_str).unwrap_or_default());
        set_default(map, "imagePullPolicy", policy);
        set_default(map, "terminationMessagePath", "/dev/termination-log");
        set_default(map, "terminationMessagePolicy", "File");
        set_default(map, "resources", json!({}));
    }
    for port in items_mut(container, "ports") {
        if let Some(port) = port.as_object_mut() {
            set_default(port, "protocol", "TCP");
        }
    }
    for env in items_mut(container, "env") {
        if let Some(from) = env.get_mut("valueFrom") {
            field_ref(from);
            if let Some(key) = object_mut(from, "fileKeyRef") {
                set_default(key, "optional", false);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(one) = container.get_mut(name) {
            probe(one);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            http_get(hook);
        }
    }
}

fn probe(probe: &mut Value) {
    http_get(probe);
    if let Some(grpc) = object_mut(probe, "grpc")
        && !grpc.contains_key("service")
    {
        grpc.insert("service".to_owned(), "".into());
    }
    if let Some(map) = probe.as_object_mut() {
        set_nonzero(map, "timeoutSeconds", 1);
        set_nonzero(map, "periodSeconds", 10);
        set_nonzero(map, "successThreshold", 1);
        set_nonzero(map, "failureThreshold", 3);
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = object_mut(handler, "httpGet") {
        set_default(get, "path", "/");
        set_default(get, "scheme", "HTTP");
    }
}

fn field_ref(holder: &mut Value) {
    if let Some(field) = object_mut(holder, "fieldRef") {
        set_default(field, "apiVersion", "v1");
    }
}

fn volume(volume: &mut Value) {
    let Some(map) = volume.as_object_mut() else {
        return;
    };
    if map.keys().all(|key| key == "name") {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = object_mut(volume, source) {
            set_default(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = object_mut(volume, "hostPath")
        && !path.contains_key("type")
    {
        path.insert("type".to_owned(), "".into());
    }
    if let Some(image) = object_mut(volume, "image") {
        let reference = image
            .get("reference")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let policy = image_pull_policy(reference);
        set_default(image, "pullPolicy", policy);
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        items_mut(downward, "items").for_each(field_ref);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(downward) = source.get_mut("downwardAPI") {
                items_mut(downward, "items").for_each(field_ref);
            }
            if let Some(token) = object_mut(source, "serviceAccountToken") {
                set_default(token, "expirationSeconds", 3600);
            }
        }
    }
}

/// What is limited and not requested is requested as it is limited.
fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    if let Some(Value::Object(requests)) = object_or_new(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn host_ports(container: &mut Value) {
    for port in items_mut(container, "ports") {
        if let Some(port) = port.as_object_mut() {
            let number = port
                .get("containerPort")
                .and_then(Value::as_i64)
                .unwrap_or_default();
            set_nonzero(port, "hostPort", number);
        }
    }
}

fn round_resources(resources: &mut Value) {
    for list in ["limits", "requests"] {
        if let Some(list) = resources.get_mut(list) {
            round_up(list);
        }
    }
}

/// Amounts below a thousandth are rounded up to it.
fn round_up(list: &mut Value) {
    let empty = &mut Map::new();
    for amount in list.as_object_mut().unwrap_or(empty).values_mut() {
        if let Ok(quantity) = Quantity::from_value(amount) {
            *amount = Value::String(quantity.rounded_to_milli().to_string());
        }
    }
}
