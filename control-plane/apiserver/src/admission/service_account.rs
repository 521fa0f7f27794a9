//! Admission ServiceAccount: every pod runs as a service account that exists, and gets its
//! token, the cluster's CA and its namespace as files, unless it asks not to.

use berth_api::{
    meta,
    status::{self, Status},
};
use rand::Rng;
use serde_json::{Value, json};

use super::pod::is_mirror;
use crate::{
    handler::Call,
    registry::{ObjectRef, core},
};

/// Where containers find the files.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Lifetime of the token in seconds (stock: an hour and a margin by which it is told from
/// tokens asked for by hand).
const EXPIRATION_SECONDS: i64 = 3607;

/// Completes the pod, or refuses it when the account does not exist.
pub async fn apply(call: &Call, pod: &mut Value) -> Result<(), Status> {
    if is_mirror(pod) {
        return refuse_references(call, pod);
    }
    let name = pod["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or_default();
    let name = if name.is_empty() { "default" } else { name }.to_owned();
    let target = ObjectRef {
        resource: core("serviceaccounts"),
        namespace: call.namespace(),
        name: &name,
    };
    let account = match call.api.registry.get(&target).await {
        Ok(account) => account,
        Err(error) if error.code == 404 => {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                call.namespace()
            );
            return Err(status::refused(call.resource, meta::name(pod), &why));
        }
        Err(error) => return Err(error),
    };
    pod["spec"]["serviceAccountName"] = name.as_str().into();
    pod["spec"]["serviceAccount"] = name.into();
    copy_pull_secrets(&account, pod);
    let own = pod["spec"]["automountServiceAccountToken"].as_bool();
    let wanted = own.or(account["automountServiceAccountToken"].as_bool());
    if wanted.unwrap_or(true) {
        let suffix: [u8; meta::SUFFIX_LEN] = rand::rng().random();
        mount_token(pod, &meta::generate_name("kube-api-access-", suffix));
    }
    Ok(())
}

/// A mirror pod may not refer to API objects.
fn refuse_references(call: &Call, pod: &Value) -> Result<(), Status> {
    let account = pod["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or_default();
    if account.is_empty() {
        return Ok(());
    }
    let why = "a mirror pod may not reference service accounts";
    Err(status::refused(call.resource, meta::name(pod), why))
}

fn copy_pull_secrets(account: &Value, pod: &mut Value) {
    let own = pod["spec"]["imagePullSecrets"].as_array();
    if own.is_none_or(Vec::is_empty) && account["imagePullSecrets"].is_array() {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
}

/// Adds the volume, and its mount to every container that has nothing at the path. Without
/// such a container there is no volume.
fn mount_token(pod: &mut Value, volume: &str) {
    let mount = json!({ "name": volume, "mountPath": MOUNT_PATH, "readOnly": true });
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"][list].as_array_mut().into_iter().flatten();
        for container in containers {
            if !container.is_object() {
                continue;
            }
            match container["volumeMounts"].as_array_mut() {
                Some(mounts) if mounts.iter().any(|own| own["mountPath"] == MOUNT_PATH) => continue,
                Some(mounts) => mounts.push(mount.clone()),
                None => container["volumeMounts"] = json!([mount]),
            }
            used = true;
        }
        // Looking for a list makes an empty one.
        if pod["spec"][list].is_null()
            && let Some(spec) = pod["spec"].as_object_mut()
        {
            spec.remove(list);
        }
    }
    if !used {
        return;
    }
    let volume = token_volume(volume);
    match pod["spec"]["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(volume),
        None => pod["spec"]["volumes"] = json!([volume]),
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                { "serviceAccountToken": {
                    "expirationSeconds": EXPIRATION_SECONDS, "path": "token",
                } },
                { "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_its_own_mount_keeps_it() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]},
        ]}});
        mount_token(&mut pod, "kube-api-access-abcde");
        let mounts = |at: usize| pod["spec"]["containers"][at]["volumeMounts"].clone();
        assert_eq!(mounts(0)[0]["name"], "kube-api-access-abcde");
        assert_eq!(mounts(1).as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
        assert!(pod["spec"].get("initContainers").is_none());
    }
}
