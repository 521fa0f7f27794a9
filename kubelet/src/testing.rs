//! Pods for tests, written as YAML fragments.

use k8s_openapi::api::core::v1::Pod;

/// A pod `default/web` with UID `u1` whose spec is `spec` (YAML).
pub fn pod(spec: &str) -> Pod {
    let spec: serde_json::Value = serde_yaml_ng::from_str(spec).unwrap();
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": spec,
    }))
    .unwrap()
}

/// A pod with containers of the given names and a restart policy.
pub fn pod_of(names: &[&str], restart_policy: &str) -> Pod {
    let containers: Vec<_> = names
        .iter()
        .map(|n| serde_json::json!({"name": n, "image": "busybox"}))
        .collect();
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": {"containers": containers, "restartPolicy": restart_policy},
    }))
    .unwrap()
}
