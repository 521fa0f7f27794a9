//! What a node may do: itself, its pods, and what its pods refer to (the stock node
//! authorizer and the NodeRestriction admission, which is judged here where it depends only
//! on the request's line).

use berth_api::status::Status;
use berth_store::Range;
use serde_json::Value;

use super::Decision;
use crate::{
    authn::User,
    object,
    registry::{self, ObjectRef, Registry, core},
    request::{Attributes, Query},
};

/// The node that a user is, when it is one.
pub(super) fn name_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    (user.in_group("system:nodes") && !name.is_empty()).then_some(name)
}

fn deny(why: impl Into<String>) -> Result<Decision, Status> {
    Ok(Decision::Deny(why.into()))
}

/// Judges a request of the node `node`.
pub(super) async fn decide(
    node: &str,
    attributes: &Attributes,
    query: &Query,
    registry: &Registry,
) -> Result<Decision, Status> {
    if !attributes.is_resource {
        return deny("");
    }
    let group_resource = (attributes.group.as_str(), attributes.resource.as_str());
    match group_resource {
        ("", "nodes") => Ok(on_node(node, attributes)),
        ("", "pods") => on_pods(node, attributes, query, registry).await,
        ("", "secrets" | "configmaps") => on_referenced(node, attributes, registry).await,
        ("", "serviceaccounts") => on_service_account(node, attributes, registry).await,
        ("coordination.k8s.io", "leases") => Ok(on_lease(node, attributes)),
        ("", "services") => Ok(allow_verbs(attributes, &["get", "list", "watch"])),
        ("" | "events.k8s.io", "events") => {
            Ok(allow_verbs(attributes, &["create", "patch", "update"]))
        }
        ("authentication.k8s.io", "tokenreviews")
        | ("authorization.k8s.io", "subjectaccessreviews") => {
            Ok(allow_verbs(attributes, &["create"]))
        }
        _ => deny(""),
    }
}

fn allow_verbs(attributes: &Attributes, verbs: &[&str]) -> Decision {
    if attributes.subresource.is_empty() && verbs.contains(&attributes.verb) {
        Decision::Allow
    } else {
        Decision::Deny(String::new())
    }
}

fn on_node(node: &str, attributes: &Attributes) -> Decision {
    let own = attributes.name == node;
    match (attributes.verb, attributes.subresource.as_str()) {
        ("create", "") => Decision::Allow,
        ("get" | "list" | "watch", "") | ("get", "status") => Decision::Allow,
        ("update" | "patch", "" | "status") if own => Decision::Allow,
        ("update" | "patch", "" | "status") => Decision::Deny(format!(
            "node '{node}' is not allowed to modify node '{}'",
            attributes.name
        )),
        _ => Decision::Deny(String::new()),
    }
}

fn on_lease(node: &str, attributes: &Attributes) -> Decision {
    let own = attributes.namespace == "kube-node-lease"
        && (attributes.name == node || attributes.verb == "create");
    let verbs = ["get", "create", "update", "patch", "delete"];
    if own && verbs.contains(&attributes.verb) {
        Decision::Allow
    } else {
        Decision::Deny(
            "can only access node lease with the same name as the requesting node".into(),
        )
    }
}

async fn on_pods(
    node: &str,
    attributes: &Attributes,
    query: &Query,
    registry: &Registry,
) -> Result<Decision, Status> {
    match (attributes.verb, attributes.subresource.as_str()) {
        // The body must be a mirror pod of this node: admission looks at it.
        ("create", "") => Ok(Decision::Allow),
        ("list" | "watch", "") => {
            let selector = query.text("fieldSelector");
            let own = selector.split(',').any(|term| {
                let value = term.strip_prefix("spec.nodeName=");
                value.is_some_and(|value| value.trim_start_matches('=') == node)
            });
            if own {
                Ok(Decision::Allow)
            } else {
                deny("can only list/watch pods with spec.nodeName field selector")
            }
        }
        ("get" | "delete", "")
        | ("get" | "update" | "patch", "status")
        | ("create", "eviction") => {
            let target = ObjectRef {
                resource: core("pods"),
                namespace: &attributes.namespace,
                name: &attributes.name,
            };
            match registry.find(&target).await? {
                // What is gone may be asked for: the answer is 404.
                None => Ok(Decision::Allow),
                Some(entry) => {
                    let pod = object::of_entry(target.resource, &entry);
                    if pod["spec"]["nodeName"] == node {
                        Ok(Decision::Allow)
                    } else {
                        deny(format!(
                            "no relationship found between node '{node}' and this object"
                        ))
                    }
                }
            }
        }
        _ => deny(""),
    }
}

async fn on_referenced(
    node: &str,
    attributes: &Attributes,
    registry: &Registry,
) -> Result<Decision, Status> {
    let single = !attributes.name.is_empty()
        && attributes.subresource.is_empty()
        && matches!(attributes.verb, "get" | "list" | "watch");
    if !single {
        return deny("can only read resources of this type by name");
    }
    let name = attributes.name.as_str();
    let is_secret = attributes.resource == "secrets";
    let found = any_pod(node, attributes, registry, |spec| {
        names_object(spec, name, is_secret)
    });
    related(node, found.await?)
}

async fn on_service_account(
    node: &str,
    attributes: &Attributes,
    registry: &Registry,
) -> Result<Decision, Status> {
    match (attributes.verb, attributes.subresource.as_str()) {
        ("create", "token") | ("get", "") => {
            let found = any_pod(node, attributes, registry, |spec| {
                spec["serviceAccountName"] == attributes.name.as_str()
            });
            related(node, found.await?)
        }
        _ => deny(""),
    }
}

fn related(node: &str, found: bool) -> Result<Decision, Status> {
    if found {
        Ok(Decision::Allow)
    } else {
        deny(format!(
            "no relationship found between node '{node}' and this object"
        ))
    }
}

/// Whether a pod of the node in the request's namespace satisfies `test` on its spec.
async fn any_pod(
    node: &str,
    attributes: &Attributes,
    registry: &Registry,
    test: impl Fn(&Value) -> bool,
) -> Result<bool, Status> {
    let pods = core("pods");
    let range = Range {
        prefix: registry::prefix(pods, &attributes.namespace),
        ..Range::default()
    };
    let page = registry.range(range).await.map_err(registry::read_status)?;
    Ok(page.entries.iter().any(|entry| {
        // Most pods do not even contain the name: only the others are parsed.
        contains(&entry.value, attributes.name.as_bytes()) && {
            let pod = object::of_entry(pods, entry);
            pod["spec"]["nodeName"] == node && test(&pod["spec"])
        }
    }))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty()
        || haystack
            .windows(needle.len())
            .any(|window| window == needle)
}

/// Whether a pod spec refers to a secret or config map: volumes, projected sources,
/// environment, image pull secrets.
fn names_object(spec: &Value, name: &str, is_secret: bool) -> bool {
    let (volume, volume_field, source, key_ref, env_from) = if is_secret {
        (
            "secret",
            "secretName",
            "secret",
            "secretKeyRef",
            "secretRef",
        )
    } else {
        (
            "configMap",
            "name",
            "configMap",
            "configMapKeyRef",
            "configMapRef",
        )
    };
    let items = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let in_volume = |item: &Value| {
        item[volume][volume_field] == name
            || items(&item["projected"]["sources"])
                .iter()
                .any(|projected| projected[source]["name"] == name)
    };
    let in_container = |container: &Value| {
        let env = items(&container["env"]);
        let from = items(&container["envFrom"]);
        env.iter()
            .any(|variable| variable["valueFrom"][key_ref]["name"] == name)
            || from.iter().any(|origin| origin[env_from]["name"] == name)
    };
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    let pull_secret = is_secret
        && items(&spec["imagePullSecrets"])
            .iter()
            .any(|secret| secret["name"] == name);
    pull_secret
        || items(&spec["volumes"]).iter().any(in_volume)
        || containers
            .iter()
            .any(|list| items(&spec[list]).iter().any(in_container))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_found_where_pods_have_them() {
        let spec = json!({
            "volumes": [
                {"name": "a", "configMap": {"name": "page"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "ca"}}]}},
                {"name": "c", "secret": {"secretName": "tls"}},
            ],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "password"}}}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "settings"}}]}],
            "imagePullSecrets": [{"name": "registry"}],
        });
        for name in ["page", "ca", "settings"] {
            assert!(names_object(&spec, name, false), "{name}");
            assert!(!names_object(&spec, name, true), "{name}");
        }
        for name in ["tls", "password", "registry"] {
            assert!(names_object(&spec, name, true), "{name}");
            assert!(!names_object(&spec, name, false), "{name}");
        }
    }
}
