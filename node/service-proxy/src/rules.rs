//! The nftables text, whole and in steps. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::model::ServicePort;

/// What the kernel holds of us, as far as we know: a Service port by its key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    /// Invariant: `None` until the table was written as a whole.
    ports: Option<BTreeMap<String, ServicePort>>,
}

impl Applied {
    pub fn len(&self) -> usize {
        self.ports.as_ref().map_or(0, BTreeMap::len)
    }

    /// The transaction that leads from here to `desired`, and the state after it;
    /// `None` when there is nothing to do.
    pub fn step(&self, table: &str, desired: &[ServicePort]) -> Option<(String, Applied)> {
        let next: BTreeMap<String, ServicePort> =
            desired.iter().map(|p| (key(p), p.clone())).collect();
        let nothing = BTreeMap::new();
        let (mut text, held) = match &self.ports {
            None => (skeleton(table), &nothing),
            Some(held) => (String::new(), held),
        };
        for (key, port) in held {
            if next.get(key) != Some(port) {
                remove(&mut text, table, key, port);
            }
        }
        for (key, port) in &next {
            if held.get(key) != Some(port) {
                add(&mut text, table, key, port);
            }
        }
        let (before, after) = (selves(held.values()), selves(next.values()));
        for (n, pair) in before.difference(&after) {
            let _ = writeln!(text, "delete element inet {table} self{n} {{ {pair} }}");
        }
        for (n, pair) in after.difference(&before) {
            let _ = writeln!(text, "add element inet {table} self{n} {{ {pair} }}");
        }
        if text.is_empty() {
            return None;
        }
        Some((text, Applied { ports: Some(next) }))
    }
}

fn key(port: &ServicePort) -> String {
    format!(
        "{} . {} . {}",
        port.address,
        port.protocol.name(),
        port.port
    )
}

fn family(port: &ServicePort) -> (u8, &'static str) {
    if port.address.is_ipv4() {
        (4, "ip")
    } else {
        (6, "ip6")
    }
}

/// A chain's name: letters, digits and `_` of the key, so that equal keys give
/// equal names and a reader can tell what it serves.
fn chain(port: &ServicePort) -> String {
    let address: String = port
        .address
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("svc_{address}_{}_{}", port.protocol.name(), port.port)
}

fn skeleton(table: &str) -> String {
    let mut text =
        format!("table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    for (n, ty) in [(4, "ipv4_addr"), (6, "ipv6_addr")] {
        let _ = writeln!(
            text,
            "  map services{n} {{ type {ty} . inet_proto . inet_service : verdict; }}"
        );
        let _ = writeln!(
            text,
            "  set refused{n} {{ type {ty} . inet_proto . inet_service; }}"
        );
        // A pod that reaches itself through a Service must see the answer come from the Service.
        let _ = writeln!(
            text,
            "  set self{n} {{ type {ty} . {ty} . inet_proto . inet_service; }}"
        );
    }
    let lookup: String = [(4, "ip"), (6, "ip6")]
        .map(|(n, ip)| format!("    {ip} daddr . meta l4proto . th dport vmap @services{n}\n"))
        .concat();
    let refuse: String = [(4, "ip"), (6, "ip6")]
        .map(|(n, ip)| {
            format!(
                "    {ip} daddr . meta l4proto . th dport @refused{n} meta l4proto tcp reject with tcp reset\n    \
                 {ip} daddr . meta l4proto . th dport @refused{n} reject\n"
            )
        })
        .concat();
    let hairpin: String = [(4, "ip"), (6, "ip6")]
        .map(|(n, ip)| format!("    ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @self{n} masquerade\n"))
        .concat();
    for (name, hook, rules) in [
        (
            "prerouting",
            "type nat hook prerouting priority dstnat",
            &lookup,
        ),
        ("output", "type nat hook output priority -100", &lookup),
        (
            "postrouting",
            "type nat hook postrouting priority srcnat",
            &hairpin,
        ),
        (
            "refuse_forward",
            "type filter hook forward priority filter",
            &refuse,
        ),
        (
            "refuse_output",
            "type filter hook output priority filter",
            &refuse,
        ),
    ] {
        let _ = writeln!(
            text,
            "  chain {name} {{\n    {hook}; policy accept;\n{rules}  }}"
        );
    }
    text.push_str("}\n");
    text
}

fn add(text: &mut String, table: &str, key: &str, port: &ServicePort) {
    let (n, ip) = family(port);
    let name = &port.name;
    if port.endpoints.is_empty() {
        let _ = writeln!(
            text,
            "add element inet {table} refused{n} {{ {key} comment \"{name}\" }}"
        );
        return;
    }
    let chain = chain(port);
    let _ = writeln!(text, "add chain inet {table} {chain}");
    if let Some(seconds) = port.affinity_seconds {
        add_affinity(text, table, port, seconds);
    } else {
        let targets: Vec<String> = port
            .endpoints
            .iter()
            .enumerate()
            .map(|(i, (address, number))| format!("{i} : {address} . {number}"))
            .collect();
        let _ = writeln!(
            text,
            "add rule inet {table} {chain} meta l4proto {} dnat {ip} addr . port to numgen random mod {} map {{ {} }}",
            port.protocol.name(),
            targets.len(),
            targets.join(", ")
        );
    }
    let _ = writeln!(
        text,
        "add element inet {table} services{n} {{ {key} comment \"{name}\" : goto {chain} }}"
    );
}

/// A client that reached an endpoint is kept with it for a time: the chain asks a
/// dynamic map first, and each choice renews the client's entry.
fn add_affinity(text: &mut String, table: &str, port: &ServicePort, seconds: u32) {
    let (_, ip) = family(port);
    let ty = if port.address.is_ipv4() {
        "ipv4_addr"
    } else {
        "ipv6_addr"
    };
    let chain = chain(port);
    for (i, _) in port.endpoints.iter().enumerate() {
        let _ = writeln!(
            text,
            "add set inet {table} {chain}_{i} {{ type {ty}; flags dynamic,timeout; timeout {seconds}s; }}"
        );
        let _ = writeln!(text, "add chain inet {table} {chain}_to_{i}");
    }
    for (i, (address, number)) in port.endpoints.iter().enumerate() {
        let to = if port.address.is_ipv4() {
            format!("{address}:{number}")
        } else {
            format!("[{address}]:{number}")
        };
        let _ = writeln!(
            text,
            "add rule inet {table} {chain}_to_{i} update @{chain}_{i} {{ {ip} saddr }}"
        );
        let _ = writeln!(
            text,
            "add rule inet {table} {chain}_to_{i} meta l4proto {} dnat {ip} to {to}",
            port.protocol.name()
        );
        let _ = writeln!(
            text,
            "add rule inet {table} {chain} {ip} saddr @{chain}_{i} goto {chain}_to_{i}"
        );
    }
    let targets: Vec<String> = (0..port.endpoints.len())
        .map(|i| format!("{i} : goto {chain}_to_{i}"))
        .collect();
    let _ = writeln!(
        text,
        "add rule inet {table} {chain} numgen random mod {} vmap {{ {} }}",
        targets.len(),
        targets.join(", ")
    );
}

fn remove(text: &mut String, table: &str, key: &str, port: &ServicePort) {
    let (n, _) = family(port);
    if port.endpoints.is_empty() {
        let _ = writeln!(text, "delete element inet {table} refused{n} {{ {key} }}");
        return;
    }
    let chain = chain(port);
    let _ = writeln!(text, "delete element inet {table} services{n} {{ {key} }}");
    let _ = writeln!(text, "flush chain inet {table} {chain}");
    if port.affinity_seconds.is_some() {
        for i in 0..port.endpoints.len() {
            let _ = writeln!(
                text,
                "flush chain inet {table} {chain}_to_{i}\ndelete chain inet {table} {chain}_to_{i}"
            );
            let _ = writeln!(text, "delete set inet {table} {chain}_{i}");
        }
    }
    let _ = writeln!(text, "delete chain inet {table} {chain}");
}

/// Elements of the sets of pods that may reach themselves: address family and key.
/// Two Service ports may lead to one endpoint, hence a set over all of them.
fn selves<'a>(ports: impl Iterator<Item = &'a ServicePort>) -> BTreeSet<(u8, String)> {
    ports
        .flat_map(|port| {
            let (n, _) = family(port);
            let protocol = port.protocol.name();
            port.endpoints.iter().map(move |(address, number)| {
                (n, format!("{address} . {address} . {protocol} . {number}"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
