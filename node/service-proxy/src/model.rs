//! Services and EndpointSlices to what the rules need. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The label by which a slice belongs to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A transport protocol that Services know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn parse(name: Option<&str>) -> Option<Protocol> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As nftables writes it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// One port of one cluster address, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Cluster address.
    pub address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the Service.
    pub port: u16,
    /// `namespace/name:port`, for people who read the rules.
    pub name: String,
    /// Seconds for which a client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// Ready endpoints of the address's family, sorted; empty: connections are refused.
    pub endpoints: Vec<(IpAddr, u16)>,
}

/// All ports of all Services with a cluster address, in a stable order.
pub(crate) fn service_ports(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> Vec<ServicePort> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        let name = labels.and_then(|labels| labels.get(SERVICE_NAME));
        if let (Some(namespace), Some(name)) = (&slice.metadata.namespace, name) {
            by_service.entry((namespace, name)).or_default().push(slice);
        }
    }
    let mut ports: Vec<ServicePort> = services
        .iter()
        .flat_map(|service| {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let own = by_service
                .get(&(namespace, name))
                .map_or(&[][..], Vec::as_slice);
            ports_of(service, namespace, name, own)
        })
        .collect();
    ports.sort_by_key(|p| (p.address, p.protocol, p.port));
    ports.dedup_by_key(|p| (p.address, p.protocol, p.port));
    ports
}

fn ports_of(
    service: &Arc<Service>,
    namespace: &str,
    name: &str,
    slices: &[&EndpointSlice],
) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let affinity_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref();
        let seconds = config.and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
        seconds
            .and_then(|s| u32::try_from(s).ok())
            .unwrap_or(10_800)
    });
    let mut ports = Vec::new();
    for address in crate::cluster_addresses(service) {
        for port in spec.ports.iter().flatten() {
            let (Some(protocol), Ok(number)) = (
                Protocol::parse(port.protocol.as_deref()),
                u16::try_from(port.port),
            ) else {
                continue;
            };
            let port_name = port.name.as_deref().unwrap_or_default();
            ports.push(ServicePort {
                address,
                protocol,
                port: number,
                name: format!("{namespace}/{name}:{port_name}"),
                affinity_seconds,
                endpoints: endpoints(slices, port_name, protocol, address.is_ipv4()),
            });
        }
    }
    ports
}

/// Ready endpoints; where none is ready, those that still serve while they terminate.
fn endpoints(
    slices: &[&EndpointSlice],
    port: &str,
    protocol: Protocol,
    v4: bool,
) -> Vec<(IpAddr, u16)> {
    let mut ready = BTreeSet::new();
    let mut serving = BTreeSet::new();
    for slice in slices {
        let number = slice.ports.iter().flatten().find_map(|p| {
            let same = p.name.as_deref().unwrap_or_default() == port
                && Protocol::parse(p.protocol.as_deref()) == Some(protocol);
            if same {
                u16::try_from(p.port?).ok()
            } else {
                None
            }
        });
        let Some(number) = number else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let addresses = endpoint
                .addresses
                .iter()
                .filter_map(|a| a.parse::<IpAddr>().ok())
                .filter(|a| a.is_ipv4() == v4)
                .map(|a| (a, number));
            if conditions.ready.unwrap_or(true) {
                ready.extend(addresses);
            } else if conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false)
            {
                serving.extend(addresses);
            }
        }
    }
    let chosen = if ready.is_empty() { serving } else { ready };
    chosen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from<T: for<'de> serde::Deserialize<'de>>(yaml: &str) -> Arc<T> {
        Arc::new(serde_json::from_str(yaml).unwrap())
    }

    fn service() -> Arc<Service> {
        from(
            r#"{"metadata":{"namespace":"default","name":"web"},"spec":{"clusterIP":"10.96.0.5","clusterIPs":["10.96.0.5"],
            "ports":[{"name":"http","port":80,"targetPort":8080,"protocol":"TCP"}]}}"#,
        )
    }

    fn slice(endpoints: &str) -> Arc<EndpointSlice> {
        from(&format!(
            r#"{{"metadata":{{"namespace":"default","name":"web-x","labels":{{"kubernetes.io/service-name":"web"}}}},
            "addressType":"IPv4","ports":[{{"name":"http","port":8080,"protocol":"TCP"}}],"endpoints":[{endpoints}]}}"#
        ))
    }

    #[test]
    fn only_ready_endpoints_serve() {
        let slice = slice(
            r#"{"addresses":["10.88.0.3"],"conditions":{"ready":true}},
               {"addresses":["10.88.0.2"]},
               {"addresses":["10.88.0.4"],"conditions":{"ready":false}}"#,
        );
        let ports = service_ports(&[service()], &[slice]);
        assert_eq!(ports.len(), 1);
        let ips: Vec<String> = ports[0]
            .endpoints
            .iter()
            .map(|(ip, p)| format!("{ip}:{p}"))
            .collect();
        assert_eq!(ips, ["10.88.0.2:8080", "10.88.0.3:8080"]);
    }

    #[test]
    fn terminating_endpoints_serve_when_none_is_ready() {
        let slice = slice(
            r#"{"addresses":["10.88.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}},
               {"addresses":["10.88.0.4"],"conditions":{"ready":false,"serving":false,"terminating":true}}"#,
        );
        let ports = service_ports(&[service()], &[slice]);
        assert_eq!(ports[0].endpoints.len(), 1);
    }

    #[test]
    fn a_headless_service_has_no_rules() {
        let headless = from(
            r#"{"metadata":{"namespace":"default","name":"web"},"spec":{"clusterIP":"None","clusterIPs":["None"],"ports":[{"port":80}]}}"#,
        );
        assert!(service_ports(&[headless], &[]).is_empty());
    }

    #[test]
    fn a_service_without_endpoints_is_kept_to_refuse() {
        let ports = service_ports(&[service()], &[]);
        assert!(ports[0].endpoints.is_empty());
    }
}
