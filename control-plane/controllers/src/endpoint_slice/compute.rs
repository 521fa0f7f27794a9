//! Slices that should be, against slices that are. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{MANAGED_BY, MANAGER, SERVICE_NAME};
use crate::owner::controller_ref;
use crate::pod_state::{is_ready, phase};

/// Endpoints of one slice (kube-controller-manager's max-endpoints-per-slice).
const PER_SLICE: usize = 100;

/// What is to be done with the slices of a Service.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<EndpointSlice>,
    pub replace: Vec<EndpointSlice>,
    pub delete: Vec<String>,
}

/// Fills the slices that are there before it makes new ones, one set for each
/// address family and each outcome of named target ports.
pub(super) fn plan(service: &Service, pods: &[Pod], held: Vec<EndpointSlice>) -> Plan {
    let mut groups = grouped(service, pods);
    let mut plan = Plan::default();
    let mut free: BTreeMap<String, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in held {
        free.entry(slice.address_type.clone())
            .or_default()
            .push(slice);
    }
    if groups.is_empty() {
        // A Service without pods keeps one empty slice, so that watchers see it has none.
        groups.push(((family(service).into(), Vec::new()), Vec::new()));
    }
    for ((address_type, ports), endpoints) in groups {
        let mut chunks: Vec<&[Endpoint]> = endpoints.chunks(PER_SLICE).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let wanted = slice(service, &address_type, &ports, chunk);
            let same_kind = free.entry(address_type.clone()).or_default();
            match take_best(same_kind, &wanted) {
                None => plan.create.push(wanted),
                Some(held) if is_equal(&held, &wanted) => {}
                Some(held) => plan.replace.push(EndpointSlice {
                    metadata: ObjectMeta {
                        labels: wanted.metadata.labels,
                        owner_references: wanted.metadata.owner_references,
                        ..held.metadata
                    },
                    ..wanted
                }),
            }
        }
    }
    plan.delete = free
        .into_values()
        .flatten()
        .map(|slice| slice.name_any())
        .collect();
    plan
}

fn take_best(held: &mut Vec<EndpointSlice>, wanted: &EndpointSlice) -> Option<EndpointSlice> {
    let best = held
        .iter()
        .position(|h| is_equal(h, wanted))
        .or_else(|| (!held.is_empty()).then_some(0))?;
    Some(held.remove(best))
}

fn is_equal(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.endpoints.as_deref().unwrap_or_default() == b.endpoints.as_deref().unwrap_or_default()
        && a.ports.as_deref().unwrap_or_default() == b.ports.as_deref().unwrap_or_default()
        && a.metadata.labels == b.metadata.labels
}

type Group = (String, Vec<EndpointPort>);

fn grouped(service: &Service, pods: &[Pod]) -> Vec<(Group, Vec<Endpoint>)> {
    let publish_unready = service
        .spec
        .as_ref()
        .and_then(|s| s.publish_not_ready_addresses)
        .unwrap_or(false);
    let mut groups: Vec<(Group, Vec<Endpoint>)> = Vec::new();
    for pod in pods {
        if matches!(phase(pod), "Succeeded" | "Failed") {
            continue;
        }
        let ports = ports(service, pod);
        for address in addresses(pod) {
            let address_type = if address.contains(':') {
                "IPv6"
            } else {
                "IPv4"
            };
            let group = (address_type.to_owned(), ports.clone());
            let endpoint = endpoint(service, pod, address, publish_unready);
            match groups.iter_mut().find(|(held, _)| *held == group) {
                Some((_, endpoints)) => endpoints.push(endpoint),
                None => groups.push((group, vec![endpoint])),
            }
        }
    }
    for (_, endpoints) in &mut groups {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    }
    groups
}

fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.clone().unwrap_or_default();
    match status.pod_ips {
        Some(ips) if !ips.is_empty() => ips.into_iter().map(|ip| ip.ip).collect(),
        _ => status.pod_ip.into_iter().collect(),
    }
}

fn family(service: &Service) -> &'static str {
    let ip = service
        .spec
        .as_ref()
        .and_then(|s| s.cluster_ip.clone())
        .unwrap_or_default();
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

fn endpoint(service: &Service, pod: &Pod, address: String, publish_unready: bool) -> Endpoint {
    let ready = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let spec = pod.spec.clone().unwrap_or_default();
    let headless_host = spec
        .hostname
        .filter(|_| spec.subdomain.as_deref() == Some(&service.name_any()));
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish_unready || (ready && !terminating)),
            serving: Some(ready),
            terminating: Some(terminating),
        }),
        hostname: headless_host,
        node_name: spec.node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// The Service's ports as this pod serves them; a named port that the pod does not
/// have is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let all = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.clone())
        .unwrap_or_default();
    all.iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let same = |p: &&ContainerPort| {
                p.name.as_deref() == Some(name)
                    && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            let containers = &pod.spec.as_ref()?.containers;
            containers
                .iter()
                .flat_map(|c| c.ports.iter().flatten())
                .find(same)
                .map(|p| p.container_port)
        }
    }
}

fn slice(
    service: &Service,
    address_type: &str,
    ports: &[EndpointPort],
    endpoints: &[Endpoint],
) -> EndpointSlice {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".into(), String::new());
    }
    EndpointSlice {
        address_type: address_type.into(),
        endpoints: Some(endpoints.to_vec()),
        ports: Some(ports.to_vec()),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![controller_ref(service)]),
            ..ObjectMeta::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": {"clusterIP": "10.96.0.5", "ports": [{"port": 80, "targetPort": "http"}]},
        }))
        .unwrap()
    }

    fn pod(name: &str, ip: &str, ready: &str, port: i32) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn unready_pods_are_listed_as_such() {
        let plan = plan(
            &service(),
            &[
                pod("a", "10.88.0.3", "True", 8080),
                pod("b", "10.88.0.2", "False", 8080),
            ],
            vec![],
        );
        let endpoints = plan.create[0].endpoints.clone().unwrap();
        let ready: Vec<Option<bool>> = endpoints
            .iter()
            .map(|e| e.conditions.as_ref().unwrap().ready)
            .collect();
        assert_eq!(ready, [Some(false), Some(true)]);
        assert_eq!(plan.create[0].ports.as_ref().unwrap()[0].port, Some(8080));
    }

    #[test]
    fn a_second_run_changes_nothing_and_an_end_replaces() {
        let pods = [pod("a", "10.88.0.3", "True", 8080)];
        let mut made = plan(&service(), &pods, vec![]).create;
        made[0].metadata.name = Some("web-x".into());
        let again = plan(&service(), &pods, made.clone());
        assert!(again.create.is_empty() && again.replace.is_empty() && again.delete.is_empty());
        let ended = plan(&service(), &[], made);
        assert_eq!(ended.replace[0].name_any(), "web-x");
        assert!(ended.replace[0].endpoints.as_ref().unwrap().is_empty());
    }

    #[test]
    fn different_named_ports_and_many_endpoints_need_slices_of_their_own() {
        let pods: Vec<Pod> = (0..150)
            .map(|i| pod(&format!("p{i}"), &format!("10.88.1.{i}"), "True", 8080))
            .chain([pod("other", "10.88.2.1", "True", 9090)])
            .collect();
        assert_eq!(plan(&service(), &pods, vec![]).create.len(), 3);
    }
}
