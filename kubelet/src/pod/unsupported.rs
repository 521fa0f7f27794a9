//! The pod fields that this kubelet does not honour: refused at admission, never ignored.
//!
//! `TABLE` is the one list; docs/kubelet.md shows it and a test makes one case of every
//! row. A row leaves the table when its field is honoured.

use serde_json::Value;

/// When a field counts as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It has any value but null, `false`, an empty list or an empty object.
    Present,
    /// It has exactly this value, as JSON.
    Is(&'static str),
    /// It has a value, and none of these strings.
    NotIn(&'static [&'static str]),
    /// As `Present`, unless the field beside it of this name has this value.
    PresentUnless(&'static str, &'static str),
}

impl When {
    /// Whether what stands beside the field makes it one that is honoured.
    fn is_lifted_by(self, siblings: &Value) -> bool {
        match self {
            When::PresentUnless(name, value) => siblings[name] == value,
            When::Present | When::Is(_) | When::NotIn(_) => false,
        }
    }
}

/// One field that is refused.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Where it is; `[]` stands for every element, `containers[]` for init containers too,
    /// unless those have a row of their own.
    pub path: &'static str,
    /// When it counts as asked for.
    pub when: When,
    /// A value (JSON) that asks for it.
    pub example: &'static str,
}

const fn row(path: &'static str, when: When, example: &'static str) -> Row {
    Row {
        path,
        when,
        example,
    }
}

const fn volume(path: &'static str, example: &'static str) -> Row {
    row(path, When::Present, example)
}

/// Every refused field.
pub const TABLE: &[Row] = &[
    row(
        "spec.ephemeralContainers",
        When::Present,
        r#"[{"name":"x"}]"#,
    ),
    row("spec.hostUsers", When::Is("false"), "false"),
    row("spec.hostnameOverride", When::Present, r#""x""#),
    row("spec.os.name", When::NotIn(&["linux"]), r#""windows""#),
    row("spec.resourceClaims", When::Present, r#"[{"name":"x"}]"#),
    row("spec.resources", When::Present, r#"{"limits":{"cpu":"1"}}"#),
    row("spec.runtimeClassName", When::Present, r#""x""#),
    row(
        "spec.securityContext.seLinuxOptions",
        When::Present,
        r#"{"level":"s0"}"#,
    ),
    row(
        "spec.securityContext.windowsOptions",
        When::Present,
        r#"{"hostProcess":true}"#,
    ),
    row(
        "spec.securityContext.appArmorProfile.type",
        When::NotIn(&["Unconfined", "RuntimeDefault"]),
        r#""Localhost""#,
    ),
    row(
        "spec.containers[].env[].valueFrom.fileKeyRef",
        When::Present,
        r#"{"key":"k","path":"p","volumeName":"v"}"#,
    ),
    row(
        "spec.containers[].lifecycle.postStart.tcpSocket",
        When::Present,
        r#"{"port":80}"#,
    ),
    row(
        "spec.containers[].lifecycle.preStop.tcpSocket",
        When::Present,
        r#"{"port":80}"#,
    ),
    row(
        "spec.containers[].resources.limits.ephemeral-storage",
        When::Present,
        r#""1Gi""#,
    ),
    row(
        "spec.containers[].resources.claims",
        When::Present,
        r#"[{"name":"x"}]"#,
    ),
    row(
        "spec.containers[].restartPolicy",
        When::Present,
        r#""Never""#,
    ),
    row(
        "spec.initContainers[].restartPolicy",
        When::NotIn(&["Always"]),
        r#""Never""#,
    ),
    row(
        "spec.containers[].restartPolicyRules",
        When::Present,
        r#"[{"action":"Restart"}]"#,
    ),
    row(
        "spec.containers[].securityContext.procMount",
        When::NotIn(&["Default"]),
        r#""Unmasked""#,
    ),
    row(
        "spec.containers[].securityContext.seLinuxOptions",
        When::Present,
        r#"{"level":"s0"}"#,
    ),
    row(
        "spec.containers[].securityContext.windowsOptions",
        When::Present,
        r#"{"hostProcess":true}"#,
    ),
    row(
        "spec.containers[].securityContext.appArmorProfile.type",
        When::NotIn(&["Unconfined", "RuntimeDefault"]),
        r#""Localhost""#,
    ),
    row(
        "spec.containers[].volumeDevices",
        When::Present,
        r#"[{"name":"x","devicePath":"/dev/x"}]"#,
    ),
    row(
        "spec.containers[].volumeMounts[].recursiveReadOnly",
        When::NotIn(&["Disabled"]),
        r#""Enabled""#,
    ),
    row(
        "spec.volumes[].emptyDir.medium",
        When::NotIn(&["", "Memory"]),
        r#""HugePages""#,
    ),
    row(
        "spec.volumes[].emptyDir.sizeLimit",
        When::PresentUnless("medium", "Memory"),
        r#""1Gi""#,
    ),
    volume("spec.volumes[].awsElasticBlockStore", r#"{"volumeID":"x"}"#),
    volume(
        "spec.volumes[].azureDisk",
        r#"{"diskName":"x","diskURI":"x"}"#,
    ),
    volume(
        "spec.volumes[].azureFile",
        r#"{"secretName":"x","shareName":"x"}"#,
    ),
    volume("spec.volumes[].cephfs", r#"{"monitors":["x"]}"#),
    volume("spec.volumes[].cinder", r#"{"volumeID":"x"}"#),
    volume("spec.volumes[].csi", r#"{"driver":"x"}"#),
    volume(
        "spec.volumes[].ephemeral",
        r#"{"volumeClaimTemplate":{"spec":{}}}"#,
    ),
    volume("spec.volumes[].fc", r#"{"lun":1}"#),
    volume("spec.volumes[].flexVolume", r#"{"driver":"x"}"#),
    volume("spec.volumes[].flocker", r#"{"datasetName":"x"}"#),
    volume("spec.volumes[].gcePersistentDisk", r#"{"pdName":"x"}"#),
    volume("spec.volumes[].gitRepo", r#"{"repository":"x"}"#),
    volume(
        "spec.volumes[].glusterfs",
        r#"{"endpoints":"x","path":"x"}"#,
    ),
    volume("spec.volumes[].image", r#"{"reference":"x"}"#),
    volume(
        "spec.volumes[].iscsi",
        r#"{"iqn":"x","lun":0,"targetPortal":"x"}"#,
    ),
    volume("spec.volumes[].nfs", r#"{"path":"x","server":"x"}"#),
    volume(
        "spec.volumes[].persistentVolumeClaim",
        r#"{"claimName":"x"}"#,
    ),
    volume("spec.volumes[].photonPersistentDisk", r#"{"pdID":"x"}"#),
    volume("spec.volumes[].portworxVolume", r#"{"volumeID":"x"}"#),
    volume("spec.volumes[].quobyte", r#"{"registry":"x","volume":"x"}"#),
    volume("spec.volumes[].rbd", r#"{"image":"x","monitors":["x"]}"#),
    volume(
        "spec.volumes[].scaleIO",
        r#"{"gateway":"x","secretRef":{"name":"x"},"system":"x"}"#,
    ),
    volume("spec.volumes[].storageos", r#"{"volumeName":"x"}"#),
    volume("spec.volumes[].vsphereVolume", r#"{"volumePath":"x"}"#),
    volume(
        "spec.volumes[].projected.sources[].clusterTrustBundle",
        r#"{"path":"x"}"#,
    ),
    volume(
        "spec.volumes[].projected.sources[].podCertificate",
        r#"{"keyType":"ED25519","signerName":"x/y"}"#,
    ),
];

/// The path of the first refused field of a pod (as JSON), with indices in place.
#[must_use]
pub fn first(pod: &Value) -> Option<String> {
    TABLE.iter().find_map(|row| {
        let init = row
            .path
            .strip_prefix("spec.containers[]")
            .map(|rest| format!("spec.initContainers[]{rest}"))
            .filter(|path| !TABLE.iter().any(|own| own.path == path));
        hit(pod, row.path, row.when, "")
            .or_else(|| init.and_then(|path| hit(pod, &path, row.when, "")))
    })
}

/// Walks `path` below `at`; `walked` is the way so far.
fn hit(at: &Value, path: &str, when: When, walked: &str) -> Option<String> {
    if path.is_empty() {
        return asked(at, when).then(|| walked.to_owned());
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let join = |name: &str| {
        if walked.is_empty() {
            name.to_owned()
        } else {
            format!("{walked}.{name}")
        }
    };
    match step.strip_suffix("[]") {
        None if rest.is_empty() && when.is_lifted_by(at) => None,
        None => hit(at.get(step)?, rest, when, &join(step)),
        Some(list) => at
            .get(list)?
            .as_array()?
            .iter()
            .enumerate()
            .find_map(|(i, item)| hit(item, rest, when, &join(&format!("{list}[{i}]")))),
    }
}

fn asked(value: &Value, when: When) -> bool {
    match when {
        When::Is(text) => serde_json::from_str::<Value>(text).is_ok_and(|v| v == *value),
        When::NotIn(allowed) => match value {
            Value::Null => false,
            Value::String(text) => !allowed.contains(&text.as_str()),
            _ => true,
        },
        When::Present | When::PresentUnless(..) => match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        },
    }
}

#[cfg(test)]
mod fields;

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    /// A pod with `value` at `path`, through the typed form, so that a path that is no
    /// field of a pod is found out.
    fn pod_with(path: &str, value: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "x"}, "spec": {
            "containers": [{"name": "c", "image": "i"}],
        }});
        put(&mut pod, path, value);
        let typed: Pod = serde_json::from_value(pod).unwrap();
        serde_json::to_value(typed).unwrap()
    }

    fn put(at: &mut Value, path: &str, value: Value) {
        if path.is_empty() {
            *at = value;
            return;
        }
        let (step, rest) = path.split_once('.').unwrap_or((path, ""));
        if let Some(list) = step.strip_suffix("[]") {
            if at[list].is_null() {
                at[list] = json!([{"name": "v"}]);
            }
            put(&mut at[list][0], rest, value);
            return;
        }
        if at[step].is_null() && !rest.is_empty() {
            // Fields that the typed form demands beside the one under test.
            at[step] = match step {
                "appArmorProfile" => json!({"type": "Localhost"}),
                _ => json!({}),
            };
        }
        put(&mut at[step], rest, value);
    }

    #[test]
    fn every_row_refuses_its_example_by_path() {
        for row in TABLE {
            let value: Value = serde_json::from_str(row.example).unwrap();
            let pod = if row.path.contains("volumeMounts[]") {
                let mut pod = json!({"metadata": {}, "spec": {"containers": [
                    {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}});
                put(&mut pod, row.path, value);
                serde_json::to_value(serde_json::from_value::<Pod>(pod).unwrap()).unwrap()
            } else {
                pod_with(row.path, value)
            };
            let expected = row.path.replace("[]", "[0]");
            assert_eq!(first(&pod), Some(expected), "{}", row.path);
        }
    }

    #[test]
    fn init_containers_are_looked_at_too() {
        let pod = json!({"spec": {"initContainers": [{"name": "a"}, {
            "name": "b", "volumeDevices": [{"name": "x"}]}]}});
        assert_eq!(
            first(&pod).as_deref(),
            Some("spec.initContainers[1].volumeDevices")
        );
    }

    #[test]
    fn defaults_written_by_an_api_server_pass() {
        let pod = json!({"spec": {
            "hostUsers": true, "os": {"name": "linux"}, "securityContext": {},
            "containers": [{"name": "c", "resources": {}, "securityContext":
                {"procMount": "Default"}, "volumeMounts": []}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            "volumes": [{"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}});
        assert_eq!(first(&pod), None);
    }

    #[test]
    fn the_documentation_shows_every_row() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kubelet.md");
        let text = std::fs::read_to_string(path).unwrap();
        for row in TABLE {
            assert!(text.contains(&format!("`{}`", row.path)), "{}", row.path);
        }
    }
}
