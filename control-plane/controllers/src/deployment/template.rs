//! Pod templates: which ReplicaSet has the Deployment's, its hash, its revision. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;

/// The label that tells the pods of one template from those of another.
pub(super) const HASH: &str = "pod-template-hash";
/// The letters of safe names: no vowels, nothing that looks like another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash by which the template's ReplicaSet is named: FNV-1a over its JSON (whose
/// keys are in order), written in safe letters.
pub(super) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let text = serde_json::to_vec(template).unwrap_or_default();
    let mut hash: u32 = 0x811c_9dc5;
    let salt = if collisions > 0 {
        collisions.to_le_bytes().to_vec()
    } else {
        Vec::new()
    };
    for byte in text.iter().chain(&salt) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// UID of the oldest ReplicaSet with the Deployment's template.
pub(super) fn find(deployment: &Deployment, sets: &[ReplicaSet]) -> Option<String> {
    sets.iter()
        .find(|set| is_same(deployment, set))
        .and_then(|set| set.metadata.uid.clone())
}

/// Whether the ReplicaSet's template is the Deployment's but for the hash.
pub(super) fn is_same(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let Some(mut held) = set.spec.as_ref().and_then(|s| s.template.clone()) else {
        return false;
    };
    let Some(mut wanted) = deployment.spec.as_ref().map(|s| s.template.clone()) else {
        return false;
    };
    for template in [&mut held, &mut wanted] {
        if let Some(meta) = &mut template.metadata {
            if let Some(labels) = &mut meta.labels {
                labels.remove(HASH);
            }
            meta.creation_timestamp = None;
        }
    }
    held == wanted
}

/// The revision that a ReplicaSet carries; 0 for none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.annotations()
        .get(super::REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// The revision of a ReplicaSet that is made now.
pub(super) fn next_revision(sets: &[ReplicaSet]) -> i64 {
    sets.iter().map(revision).max().unwrap_or_default() + 1
}

/// Annotations of the Deployment that its ReplicaSets carry too (`kubernetes.io/change-cause`).
pub(super) fn copied_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    deployment
        .annotations()
        .iter()
        .filter(|(key, _)| {
            !key.starts_with("deployment.kubernetes.io/")
                && *key != "kubectl.kubernetes.io/last-applied-configuration"
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_safe_and_differ_after_a_collision() {
        let template: PodTemplateSpec = serde_json::from_value(
            serde_json::json!({"spec": {"containers": [{"name": "a", "image": "b"}]}}),
        )
        .unwrap();
        let first = hash(&template, 0);
        assert_eq!(first, hash(&template, 0));
        assert_ne!(first, hash(&template, 1));
        assert!(first.bytes().all(|b| ALPHABET.contains(&b)));
    }
}
