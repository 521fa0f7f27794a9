//! A static pod's manifest as a pod: strict, named and marked. Pure.

use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::pod::{HASH_ANNOTATION, SOURCE_ANNOTATION};

/// Why a file is no pod.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Neither YAML nor JSON.
    #[error("not YAML or JSON")]
    Syntax(#[source] serde_yaml_ng::Error),
    /// Something else than a pod.
    #[error("apiVersion `{version}`, kind `{kind}`: only v1 Pod can be a static pod")]
    Kind { version: String, kind: String },
    /// A field has a wrong type.
    #[error("not a valid pod")]
    Type(#[source] serde_json::Error),
    /// A field that no pod has.
    #[error("unknown field `{0}`")]
    UnknownField(String),
    /// Something a pod needs is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A reference to an API object, which a static pod cannot have.
    #[error("a static pod may not refer to a {0}")]
    Reference(&'static str),
}

/// The pod in `text`, as it runs on `node`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, path: &Path, node: &str) -> Result<Pod, ManifestError> {
    let mut value: Value = serde_yaml_ng::from_str(text).map_err(ManifestError::Syntax)?;
    let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (word("apiVersion"), word("kind"));
    if version != "v1" || kind != "Pod" {
        return Err(ManifestError::Kind { version, kind });
    }
    quote_quantities(&mut value);
    let mut pod: Pod = serde_json::from_value(value.clone()).map_err(ManifestError::Type)?;
    let typed = serde_json::to_value(&pod).map_err(ManifestError::Type)?;
    if let Some(field) = unknown(&value, &typed, "") {
        return Err(ManifestError::UnknownField(field));
    }
    check(&pod)?;
    mark(&mut pod, &typed, path, node);
    Ok(pod)
}

fn check(pod: &Pod) -> Result<(), ManifestError> {
    if pod.metadata.name.as_deref().unwrap_or_default().is_empty() {
        return Err(ManifestError::Missing("metadata.name"));
    }
    let spec = pod.spec.as_ref().ok_or(ManifestError::Missing("spec"))?;
    if spec.containers.is_empty() {
        return Err(ManifestError::Missing("spec.containers"));
    }
    let named = |name: &Option<String>| name.as_ref().is_some_and(|n| !n.is_empty());
    if named(&spec.service_account_name) {
        return Err(ManifestError::Reference("ServiceAccount"));
    }
    for container in spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
    {
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return Err(ManifestError::Missing("spec.containers[].image"));
        }
        let sources = || {
            container
                .env
                .iter()
                .flatten()
                .filter_map(|e| e.value_from.as_ref())
        };
        let from = || container.env_from.iter().flatten();
        if sources().any(|s| s.secret_key_ref.is_some()) || from().any(|f| f.secret_ref.is_some()) {
            return Err(ManifestError::Reference("Secret"));
        }
        let config_maps = sources().any(|s| s.config_map_key_ref.is_some())
            || from().any(|f| f.config_map_ref.is_some());
        if config_maps {
            return Err(ManifestError::Reference("ConfigMap"));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.secret.is_some() {
            return Err(ManifestError::Reference("Secret"));
        }
        if volume.config_map.is_some() {
            return Err(ManifestError::Reference("ConfigMap"));
        }
    }
    Ok(())
}

/// Gives the pod the identity of a static pod: the UID is the hash of what it says, where
/// it stands and where it runs, so that a change makes another pod.
fn mark(pod: &mut Pod, typed: &Value, path: &Path, node: &str) {
    let mut hash = Sha256::new();
    hash.update(typed.to_string());
    hash.update([0]);
    hash.update(node);
    hash.update([0]);
    hash.update(path.as_os_str().as_encoded_bytes());
    let hash = hex::encode(&hash.finalize()[..16]);
    let metadata = &mut pod.metadata;
    let name = metadata.name.take().unwrap_or_default();
    metadata.name = Some(format!("{name}-{node}"));
    metadata.namespace.get_or_insert_with(|| "default".into());
    metadata.uid = Some(hash.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE_ANNOTATION.into(), "file".into());
    annotations.insert(HASH_ANNOTATION.into(), hash);
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node.to_owned());
        spec.tolerations.get_or_insert_default().push(Toleration {
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            ..Toleration::default()
        });
    }
}

/// Quantities may stand as numbers in a manifest; the typed form has them as text.
fn quote_quantities(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if matches!(name.as_str(), "limits" | "requests" | "overhead") {
                    for amount in field.as_object_mut().into_iter().flatten().map(|(_, v)| v) {
                        if amount.is_number() {
                            *amount = Value::String(amount.to_string());
                        }
                    }
                } else if matches!(name.as_str(), "sizeLimit" | "divisor") && field.is_number() {
                    *field = Value::String(field.to_string());
                } else {
                    quote_quantities(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quote_quantities),
        _ => {}
    }
}

/// The path of the first field of `original` that the typed form does not have.
fn unknown(original: &Value, typed: &Value, path: &str) -> Option<String> {
    match (original, typed) {
        (Value::Object(fields), Value::Object(known)) => fields.iter().find_map(|(name, field)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match known.get(name) {
                Some(known) => unknown(field, known, &path),
                None if field.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(items), Value::Array(known)) => items
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(i, (item, known))| unknown(item, known, &format!("{path}[{i}]"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Pod, String> {
        parse(text, Path::new("/etc/berth/manifests/x.yaml"), "n1").map_err(|e| e.to_string())
    }

    const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: a, image: i, resources: {limits: {cpu: 1, memory: 64Mi}}}
";

    #[test]
    fn a_manifest_becomes_a_marked_pod() {
        let pod = parse_text(POD).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(pod.metadata.uid.as_ref().unwrap().len(), 32);
        assert!(crate::pod::is_static(&pod));
        let again = parse_text(POD).unwrap();
        assert_eq!(pod, again);
        let other = parse_text(&POD.replace("64Mi", "65Mi")).unwrap();
        assert_ne!(pod.metadata.uid, other.metadata.uid);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, text) in [
            ("kind: Pod", "kind: Job", "kind `Job`"),
            (
                "image: i",
                "image: i, imagee: j",
                "unknown field `spec.containers[0].imagee`",
            ),
            ("image: i", "image: [i]", "not a valid pod"),
            ("{name: web}", "{}", "`metadata.name` is missing"),
            (", image: i", "", "`spec.containers[].image` is missing"),
            (
                "image: i",
                "image: i, envFrom: [{secretRef: {name: s}}]",
                "may not refer to a Secret",
            ),
        ] {
            let error = parse_text(&POD.replace(from, to)).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
