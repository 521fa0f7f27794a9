//! The cluster's names as records. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Seconds that a record may be kept: short, because endpoints come and go.
const TTL: u32 = 5;
/// The label by which a slice belongs to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the zone knows of a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Records of the type asked for.
    Records(Vec<Record>),
    /// The name exists, but not with that type.
    NoData,
    /// No such name in the domain.
    NoName,
    /// Not a name of the domain.
    Elsewhere,
}

/// All records of the cluster domain.
#[derive(Debug, Clone)]
pub struct Zone {
    origin: Name,
    /// Invariant: keys are lower case and fully qualified.
    names: BTreeMap<Name, Vec<RData>>,
    reverse: BTreeMap<Name, Vec<RData>>,
}

impl Zone {
    /// The zone of these Services and slices; `None` when `domain` is not a name.
    pub fn new(
        domain: &str,
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
    ) -> Option<Zone> {
        let mut origin = Name::from_str(domain).ok()?;
        origin.set_fqdn(true);
        let mut zone = Zone {
            origin: origin.to_lowercase(),
            names: BTreeMap::new(),
            reverse: BTreeMap::new(),
        };
        zone.add("dns-version", RData::TXT(TXT::new(vec!["1.1.0".into()])));
        for service in services {
            zone.add_service(service, slices);
        }
        Some(zone)
    }

    /// What the zone answers to a query.
    pub fn lookup(&self, name: &Name, kind: RecordType) -> Answer {
        let mut wanted = name.to_lowercase();
        wanted.set_fqdn(true);
        let inside = self.origin.zone_of(&wanted);
        let found = self
            .names
            .get(&wanted)
            .or_else(|| self.reverse.get(&wanted));
        match found {
            Some(data) => {
                let records = self.records(name, data, kind);
                if records.is_empty() {
                    Answer::NoData
                } else {
                    Answer::Records(records)
                }
            }
            None if !inside => Answer::Elsewhere,
            // A name between the origin and a record exists without records of its own.
            None if self.names.keys().any(|key| wanted.zone_of(key)) => Answer::NoData,
            None => Answer::NoName,
        }
    }

    fn records(&self, name: &Name, data: &[RData], kind: RecordType) -> Vec<Record> {
        data.iter()
            .filter(|rdata| {
                kind == RecordType::ANY
                    || rdata.record_type() == kind
                    || rdata.record_type() == RecordType::CNAME
            })
            .map(|rdata| Record::from_rdata(name.clone(), TTL, rdata.clone()))
            .collect()
    }

    /// The record that goes with "no such name": how long that may be kept.
    pub fn soa(&self) -> Record {
        let server = Name::from_str("ns.dns").and_then(|n| n.append_domain(&self.origin));
        let server = server.unwrap_or_else(|_| self.origin.clone());
        let contact = Name::from_str("hostmaster").and_then(|n| n.append_domain(&self.origin));
        let contact = contact.unwrap_or_else(|_| self.origin.clone());
        let soa = SOA::new(server, contact, 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    fn full(&self, relative: &str) -> Option<Name> {
        let name = Name::from_str(relative)
            .ok()?
            .append_domain(&self.origin)
            .ok()?;
        Some(name.to_lowercase())
    }

    fn add(&mut self, relative: &str, data: RData) {
        if let Some(name) = self.full(relative) {
            self.names.entry(name).or_default().push(data);
        }
    }

    fn add_service(&mut self, service: &Arc<Service>, slices: &[Arc<EndpointSlice>]) {
        let (Some(name), Some(namespace), Some(spec)) = (
            &service.metadata.name,
            &service.metadata.namespace,
            &service.spec,
        ) else {
            return;
        };
        let base = format!("{name}.{namespace}.svc");
        if let (Some("ExternalName"), Some(target)) = (spec.type_.as_deref(), &spec.external_name) {
            if let Ok(mut target) = Name::from_str(target) {
                target.set_fqdn(true);
                self.add(&base, RData::CNAME(CNAME(target)));
            }
            return;
        }
        let cluster_ips = spec
            .cluster_ips
            .clone()
            .unwrap_or_else(|| spec.cluster_ip.iter().cloned().collect());
        let addresses: Vec<IpAddr> = cluster_ips
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        if addresses.is_empty() {
            let own = slices.iter().filter(|slice| {
                let labels = slice.metadata.labels.as_ref();
                slice.metadata.namespace.as_ref() == Some(namespace)
                    && labels.and_then(|l| l.get(SERVICE_NAME)) == Some(name)
            });
            let unready = spec.publish_not_ready_addresses.unwrap_or(false);
            self.add_headless(&base, own.map(AsRef::as_ref), unready);
            return;
        }
        for address in addresses {
            self.add(&base, address_data(address));
            if let (Some(target), Ok(mut key)) = (self.full(&base), reverse_name(address)) {
                key.set_fqdn(true);
                self.reverse
                    .entry(key)
                    .or_default()
                    .push(RData::PTR(PTR(target)));
            }
        }
        for port in spec.ports.iter().flatten() {
            if let Ok(number) = u16::try_from(port.port) {
                self.add_srv(
                    &base,
                    &base,
                    port.name.as_deref(),
                    port.protocol.as_deref(),
                    number,
                );
            }
        }
    }

    fn add_headless<'a>(
        &mut self,
        base: &str,
        slices: impl Iterator<Item = &'a EndpointSlice>,
        unready: bool,
    ) {
        let mut seen = BTreeSet::new();
        for slice in slices {
            for endpoint in slice.endpoints.iter().flatten() {
                let ready = endpoint
                    .conditions
                    .as_ref()
                    .and_then(|c| c.ready)
                    .unwrap_or(true);
                if !ready && !unready {
                    continue;
                }
                for address in endpoint
                    .addresses
                    .iter()
                    .filter_map(|a| a.parse::<IpAddr>().ok())
                {
                    let host = format!("{}.{base}", host_label(endpoint, address));
                    if seen.insert(address) {
                        self.add(base, address_data(address));
                        self.add(&host, address_data(address));
                    }
                    for port in slice.ports.iter().flatten() {
                        if let Some(Ok(number)) = port.port.map(u16::try_from) {
                            self.add_srv(
                                base,
                                &host,
                                port.name.as_deref(),
                                port.protocol.as_deref(),
                                number,
                            );
                        }
                    }
                }
            }
        }
    }

    fn add_srv(
        &mut self,
        base: &str,
        host: &str,
        port: Option<&str>,
        protocol: Option<&str>,
        number: u16,
    ) {
        let (Some(port), Some(target)) = (port.filter(|p| !p.is_empty()), self.full(host)) else {
            return;
        };
        let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
        let data = RData::SRV(SRV::new(0, 100, number, target));
        self.add(&format!("_{port}._{protocol}.{base}"), data);
    }
}

/// The endpoint's host name, or its address with dashes.
fn host_label(endpoint: &Endpoint, address: IpAddr) -> String {
    endpoint
        .hostname
        .clone()
        .filter(|h| !h.is_empty())
        .unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"))
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

fn reverse_name(address: IpAddr) -> Result<Name, hickory_proto::ProtoError> {
    let text = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles: Vec<String> = v6
                .octets()
                .iter()
                .rev()
                .flat_map(|byte| [byte & 15, byte >> 4])
                .map(|nibble| format!("{nibble:x}"))
                .collect();
            format!("{}.ip6.arpa", nibbles.join("."))
        }
    };
    Name::from_str(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let services: Vec<Arc<Service>> = [
            r#"{"metadata":{"namespace":"default","name":"web"},"spec":{"clusterIP":"10.96.0.5","clusterIPs":["10.96.0.5"],
                "ports":[{"name":"http","port":80,"protocol":"TCP"}]}}"#,
            r#"{"metadata":{"namespace":"default","name":"db"},"spec":{"clusterIP":"None","clusterIPs":["None"]}}"#,
            r#"{"metadata":{"namespace":"x","name":"out"},"spec":{"type":"ExternalName","externalName":"example.org"}}"#,
        ]
        .iter()
        .map(|text| Arc::new(serde_json::from_str(text).unwrap()))
        .collect();
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"metadata":{"namespace":"default","name":"db-1","labels":{"kubernetes.io/service-name":"db"}},"addressType":"IPv4",
            "ports":[{"name":"pg","port":5432,"protocol":"TCP"}],
            "endpoints":[{"addresses":["10.88.0.7"],"hostname":"db-0"},{"addresses":["10.88.0.8"],"conditions":{"ready":false}}]}"#,
        )
        .unwrap();
        Zone::new("cluster.local", &services, &[Arc::new(slice)]).unwrap()
    }

    fn ask(name: &str, kind: RecordType) -> String {
        match zone().lookup(&Name::from_str(name).unwrap(), kind) {
            Answer::Records(records) => {
                let data: Vec<String> = records.iter().map(|r| r.data.to_string()).collect();
                data.join(", ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_of_the_cluster() {
        for (name, kind, answer) in [
            ("web.default.svc.cluster.local.", RecordType::A, "10.96.0.5"),
            ("WEB.Default.svc.cluster.local.", RecordType::A, "10.96.0.5"),
            ("web.default.svc.cluster.local.", RecordType::AAAA, "NoData"),
            (
                "_http._tcp.web.default.svc.cluster.local.",
                RecordType::SRV,
                "0 100 80 web.default.svc.cluster.local.",
            ),
            ("db.default.svc.cluster.local.", RecordType::A, "10.88.0.7"),
            (
                "db-0.db.default.svc.cluster.local.",
                RecordType::A,
                "10.88.0.7",
            ),
            ("out.x.svc.cluster.local.", RecordType::A, "example.org."),
            (
                "5.0.96.10.in-addr.arpa.",
                RecordType::PTR,
                "web.default.svc.cluster.local.",
            ),
            ("default.svc.cluster.local.", RecordType::A, "NoData"),
            ("none.default.svc.cluster.local.", RecordType::A, "NoName"),
            ("example.org.", RecordType::A, "Elsewhere"),
            ("9.0.96.10.in-addr.arpa.", RecordType::PTR, "Elsewhere"),
            ("dns-version.cluster.local.", RecordType::TXT, "1.1.0"),
        ] {
            assert_eq!(ask(name, kind), answer, "{name} {kind}");
        }
    }
}
