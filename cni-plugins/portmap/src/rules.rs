//! The nftables text of host ports. Pure.

use std::fmt::Write;
use std::net::IpAddr;

use berth_cni::{CniError, Code};
use serde_json::Value;

use crate::config::{Config, Mapping};

/// The table's name, in family inet.
pub(crate) const TABLE: &str = "cni_portmap";

/// Declares the table, adds one element a mapping and address family. `targets`
/// are the container's addresses with their prefix lengths.
pub(crate) fn add(
    config: &Config,
    container: &str,
    targets: &[(IpAddr, u8)],
    bridge: Option<&str>,
) -> Result<String, CniError> {
    let mut text = table();
    if let Some(bridge) = bridge {
        let _ = writeln!(text, "add element inet {TABLE} bridges {{ \"{bridge}\" }}");
    }
    for (address, prefix) in targets {
        let family = if address.is_ipv4() { 4 } else { 6 };
        let _ = writeln!(
            text,
            "add element inet {TABLE} subnets{family} {{ {address}/{prefix} }}"
        );
    }
    for mapping in &config.mappings {
        let mut served = false;
        for (target, _) in targets {
            if mapping
                .host_ip
                .is_some_and(|ip| ip.is_ipv4() != target.is_ipv4())
            {
                continue;
            }
            served = true;
            let (map, key) = key(mapping, *target);
            let _ = writeln!(
                text,
                "add element inet {TABLE} {map} {{ {key} comment \"{container}\" : {target} . {} }}",
                mapping.container_port
            );
        }
        if !served {
            return Err(CniError::new(
                Code::InvalidConfig,
                format!(
                    "portmap: host port {}: the container has no address of that family",
                    mapping.host_port
                ),
            ));
        }
    }
    Ok(text)
}

fn key(mapping: &Mapping, target: IpAddr) -> (String, String) {
    let family = if target.is_ipv4() { 4 } else { 6 };
    let port = format!("{} . {}", mapping.protocol, mapping.host_port);
    match mapping.host_ip {
        Some(ip) => (format!("addr_ports{family}"), format!("{ip} . {port}")),
        None => (format!("ports{family}"), port),
    }
}

fn table() -> String {
    let mut text = format!("table inet {TABLE} {{\n  set bridges {{ type ifname; }}\n");
    for (n, ty) in [(4, "ipv4_addr"), (6, "ipv6_addr")] {
        let _ = write!(
            text,
            "  map ports{n} {{ type inet_proto . inet_service : {ty} . inet_service; }}\n  \
             map addr_ports{n} {{ type {ty} . inet_proto . inet_service : {ty} . inet_service; }}\n  \
             set subnets{n} {{ type {ty}; flags interval; auto-merge; }}\n  \
             chain dnat{n} {{ }}\n"
        );
    }
    text.push_str(
        "  chain prerouting { type nat hook prerouting priority dstnat; policy accept; }\n",
    );
    text.push_str("  chain output { type nat hook output priority -100; policy accept; }\n");
    text.push_str(
        "  chain postrouting { type nat hook postrouting priority srcnat; policy accept; }\n",
    );
    text.push_str(
        "  chain guard { type filter hook prerouting priority raw; policy accept; }\n}\n",
    );
    // The chains are written anew each time, maps and sets keep their elements.
    for chain in [
        "dnat4",
        "dnat6",
        "prerouting",
        "output",
        "postrouting",
        "guard",
    ] {
        let _ = writeln!(text, "flush chain inet {TABLE} {chain}");
    }
    let _ = writeln!(text, "table inet {TABLE} {{");
    for (n, ip) in [(4, "ip"), (6, "ip6")] {
        let _ = writeln!(
            text,
            "  chain dnat{n} {{\n    dnat {ip} addr . port to {ip} daddr . meta l4proto . th dport map @addr_ports{n}\n    \
             dnat {ip} addr . port to meta l4proto . th dport map @ports{n}\n  }}"
        );
    }
    let local = "meta l4proto { tcp, udp, sctp } fib daddr type local";
    for chain in ["prerouting", "output"] {
        let _ = writeln!(
            text,
            "  chain {chain} {{\n    meta nfproto ipv4 {local} jump dnat4\n    meta nfproto ipv6 {local} jump dnat6\n  }}"
        );
    }
    // From 127.0.0.1, and from a pod to a pod of its own subnet by the host's port, the
    // answer must come back here. The input interface is not to be relied on in
    // postrouting: with br_netfilter it is not set.
    text.push_str(
        "  chain postrouting {\n    ct status dnat ip saddr 127.0.0.0/8 masquerade\n    \
         ct status dnat ip saddr @subnets4 oifname @bridges masquerade\n    \
         ct status dnat ip6 saddr @subnets6 oifname @bridges masquerade\n  }\n  \
         chain guard {\n    iifname @bridges ip daddr 127.0.0.0/8 drop\n  }\n}\n",
    );
    text
}

/// The text that deletes every element with the container's id; empty when there is none.
pub(crate) fn remove(listing: &str, container: &str) -> Result<String, CniError> {
    let malformed = |e: &dyn std::fmt::Display| {
        CniError::caused(Code::Decode, "portmap: cannot read nft's listing", e)
    };
    let document: Value = serde_json::from_str(listing).map_err(|e| malformed(&e))?;
    let objects = document["nftables"]
        .as_array()
        .ok_or_else(|| malformed(&"no nftables array"))?;
    let mut text = String::new();
    for map in objects.iter().filter_map(|object| object.get("map")) {
        let (Some(name), Some(elements)) = (map["name"].as_str(), map["elem"].as_array()) else {
            continue;
        };
        for element in elements {
            let key = &element[0];
            if key["elem"]["comment"].as_str() != Some(container) {
                continue;
            }
            let parts: Vec<String> = key["elem"]["val"]["concat"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|part| {
                    part.as_str()
                        .map_or_else(|| part.to_string(), str::to_owned)
                })
                .collect();
            let _ = writeln!(
                text,
                "delete element inet {TABLE} {name} {{ {} }}",
                parts.join(" . ")
            );
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_only_the_elements_of_the_container() {
        let listing = r#"{"nftables": [{"metainfo": {}}, {"map": {"name": "ports4", "elem": [
            [{"elem": {"val": {"concat": ["tcp", 8080]}, "comment": "a"}}, {"concat": ["10.0.0.2", 80]}],
            [{"elem": {"val": {"concat": ["udp", 53]}, "comment": "b"}}, {"concat": ["10.0.0.3", 53]}]]}}]}"#;
        assert_eq!(
            remove(listing, "a").unwrap(),
            "delete element inet cni_portmap ports4 { tcp . 8080 }\n"
        );
        assert_eq!(remove(listing, "c").unwrap(), "");
    }

    #[test]
    fn a_host_address_has_its_own_map() {
        let mapping = Mapping {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp",
            host_ip: Some("192.0.2.1".parse().unwrap()),
        };
        let (map, key) = key(&mapping, "10.0.0.2".parse().unwrap());
        assert_eq!(
            (map.as_str(), key.as_str()),
            ("addr_ports4", "192.0.2.1 . tcp . 8080")
        );
    }
}
