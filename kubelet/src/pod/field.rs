//! Fields of the pod as values: `fieldRef` and `resourceFieldRef`, for environments and
//! downwardAPI volumes.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::{host_network, name, namespace, uid};
use crate::resources::qos::{limits, requests};
use crate::resources::quantity::{milli, milli_of};

/// What a field may be taken from besides the pod.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `status.hostIP`.
    pub host_ip: String,
    /// `status.podIPs`, the primary first; empty before there is a sandbox.
    pub pod_ips: Vec<String>,
    /// The node's allocatable CPU in millicores: the value of an absent CPU limit.
    pub allocatable_cpu_milli: i64,
    /// The node's allocatable memory in bytes: the value of an absent memory limit.
    pub allocatable_memory: i64,
}

/// The value of a `fieldPath`; `None` when the path is not one of the API's.
#[must_use]
pub fn field_value(pod: &Pod, path: &str, around: &Surroundings) -> Option<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return None,
        };
        let value = map.and_then(|m| m.get(key));
        return Some(value.cloned().unwrap_or_default());
    }
    let pod_ips = if host_network(pod) {
        vec![around.host_ip.clone()]
    } else {
        around.pod_ips.clone()
    };
    Some(match path {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => around.host_ip.clone(),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        _ => return None,
    })
}

/// The value of a `resourceFieldRef`, divided and rounded up; `None` when the resource is
/// not one of the API's or the divisor is malformed.
#[must_use]
pub fn resource_value(
    container: &Container,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Option<String> {
    let (side, resource) = selector.resource.split_once('.')?;
    if !matches!(resource, "cpu" | "memory" | "ephemeral-storage")
        && !resource.starts_with("hugepages-")
    {
        return None;
    }
    let amount = match side {
        "requests" => milli_of(requests(container), resource),
        "limits" => match milli_of(limits(container), resource) {
            0 => allocatable(resource, around),
            limit => limit,
        },
        _ => return None,
    };
    let divisor = match &selector.divisor {
        Some(q) if q.0 != "0" => milli(&q.0).filter(|d| *d > 0)?,
        _ => 1000,
    };
    let value = (i128::from(amount) + i128::from(divisor) - 1) / i128::from(divisor);
    Some(value.to_string())
}

fn allocatable(resource: &str, around: &Surroundings) -> i64 {
    match resource {
        "cpu" => around.allocatable_cpu_milli,
        "memory" => around.allocatable_memory.saturating_mul(1000),
        _ => 0,
    }
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    Some((map, key.trim_matches(['\'', '"'])))
}

/// `key="value"` lines, as the downward API prints maps.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let line = |(k, v): (&String, &String)| format!("{k}={v:?}");
    map.into_iter()
        .flatten()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn around() -> Surroundings {
        Surroundings {
            host_ip: "192.0.2.1".into(),
            pod_ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            allocatable_cpu_milli: 2000,
            allocatable_memory: 1024,
        }
    }

    #[test]
    fn fields() {
        let mut pod = pod("{nodeName: n1, serviceAccountName: sa, containers: []}");
        pod.metadata.labels = Some([("a/b".to_owned(), "x".to_owned())].into());
        for (path, value) in [
            ("metadata.name", Some("web")),
            ("metadata.uid", Some("u1")),
            ("metadata.labels['a/b']", Some("x")),
            ("metadata.labels['none']", Some("")),
            ("metadata.labels", Some("a/b=\"x\"")),
            ("spec.nodeName", Some("n1")),
            ("spec.serviceAccountName", Some("sa")),
            ("status.hostIP", Some("192.0.2.1")),
            ("status.podIP", Some("10.0.0.1")),
            ("status.podIPs", Some("10.0.0.1,fd00::1")),
            ("spec.containers", None),
        ] {
            assert_eq!(
                field_value(&pod, path, &around()).as_deref(),
                value,
                "{path}"
            );
        }
    }

    #[test]
    fn resources_divide_and_round_up() {
        let pod = pod("containers: [{name: a, resources: {
            requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 500m}}}]");
        let container = &crate::pod::containers(&pod)[0];
        for (resource, divisor, value) in [
            ("requests.cpu", "0", Some("1")),
            ("requests.cpu", "1m", Some("250")),
            ("limits.cpu", "1m", Some("500")),
            ("requests.memory", "1Mi", Some("64")),
            ("limits.memory", "1", Some("1024")),
            ("limits.pods", "1", None),
            ("requests.cpu", "x", None),
        ] {
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: Some(Quantity(divisor.into())),
                resource: resource.into(),
            };
            let got = resource_value(container, &selector, &around());
            assert_eq!(got.as_deref(), value, "{resource} / {divisor}");
        }
    }
}
