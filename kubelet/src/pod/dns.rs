//! resolv.conf of a pod, by its `dnsPolicy` and `dnsConfig`; and its host name.

use berth_proto::cri::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use super::{host_network, name, namespace};
use crate::config::Config;

/// Limits of resolv.conf(5) readers that Kubernetes applies.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// Longest host name in one label (RFC 1123).
const MAX_HOSTNAME: usize = 63;

/// The pod's DNS settings. `host` is the text of `Config::resolv_conf`.
#[must_use]
pub fn dns_config(pod: &Pod, config: &Config, host: &str) -> DnsConfig {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|s| s.dns_policy.as_deref());
    let cluster = match policy.unwrap_or("ClusterFirst") {
        "ClusterFirstWithHostNet" => !config.cluster_dns.is_empty(),
        "ClusterFirst" => !config.cluster_dns.is_empty() && !host_network(pod),
        _ => false,
    };
    let mut dns = if policy == Some("None") {
        DnsConfig::default()
    } else {
        parse_resolv_conf(host)
    };
    if cluster {
        let domain = &config.cluster_domain;
        let mut searches = vec![
            format!("{}.svc.{domain}", namespace(pod)),
            format!("svc.{domain}"),
            domain.clone(),
        ];
        searches.append(&mut dns.searches);
        dns = DnsConfig {
            servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        };
    }
    if let Some(extra) = spec.and_then(|s| s.dns_config.as_ref()) {
        dns.servers
            .extend(extra.nameservers.iter().flatten().cloned());
        dns.searches
            .extend(extra.searches.iter().flatten().cloned());
        for option in extra.options.iter().flatten() {
            let option_name = option.name.as_deref().unwrap_or_default();
            dns.options
                .retain(|o| o.split(':').next() != Some(option_name));
            dns.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{option_name}:{value}"),
                _ => option_name.to_owned(),
            });
        }
    }
    limit(dns)
}

fn limit(mut dns: DnsConfig) -> DnsConfig {
    unique(&mut dns.servers);
    unique(&mut dns.searches);
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    while dns.searches.join(" ").len() > MAX_SEARCH_CHARS {
        dns.searches.pop();
    }
    dns
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let values = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => dns.servers.extend(values.take(1)),
            // The last `search` line counts, resolv.conf(5).
            Some("search") => dns.searches = values.filter(|s| s != ".").collect(),
            Some("options") => dns.options = values.collect(),
            _ => {}
        }
    }
    dns
}

/// The pod's host name and, with a subdomain, its domain.
#[must_use]
pub fn hostname(pod: &Pod, config: &Config) -> (String, Option<String>) {
    let spec = pod.spec.as_ref();
    let asked = spec
        .and_then(|s| s.hostname.clone())
        .filter(|h| !h.is_empty());
    let mut host = asked.unwrap_or_else(|| name(pod).to_owned());
    host.truncate(MAX_HOSTNAME);
    let host = host.trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.and_then(|s| s.subdomain.as_deref());
    let domain = subdomain
        .filter(|s| !s.is_empty())
        .map(|s| format!("{s}.{}.svc.{}", namespace(pod), config.cluster_domain));
    (host, domain)
}

/// The name the pod's UTS namespace gets.
#[must_use]
pub fn uts_name(pod: &Pod, config: &Config) -> String {
    if host_network(pod) {
        return config.node_name.clone();
    }
    let fqdn = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn) == Some(true);
    match hostname(pod, config) {
        (host, Some(domain)) if fqdn => format!("{host}.{domain}"),
        (host, _) => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use crate::testing::pod;

    const HOST: &str = "# c\nnameserver 9.9.9.9\nsearch corp.example\noptions timeout:1\n";

    fn config() -> Config {
        Config::resolve(RawConfig {
            node_name: Some("n1".into()),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            ..RawConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn policies() {
        let cluster = "default.svc.cluster.local svc.cluster.local cluster.local corp.example";
        for (spec, servers, searches, options) in [
            ("containers: []", "10.96.0.10", cluster, "ndots:5"),
            (
                "{hostNetwork: true, containers: []}",
                "9.9.9.9",
                "corp.example",
                "timeout:1",
            ),
            (
                "{hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, containers: []}",
                "10.96.0.10",
                cluster,
                "ndots:5",
            ),
            (
                "{dnsPolicy: Default, containers: []}",
                "9.9.9.9",
                "corp.example",
                "timeout:1",
            ),
            (
                "{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1], searches: [a, a],
                  options: [{name: ndots, value: '2'}, {name: rotate}]}, containers: []}",
                "1.1.1.1",
                "a",
                "ndots:2 rotate",
            ),
            (
                "{dnsConfig: {options: [{name: ndots, value: '1'}]}, containers: []}",
                "10.96.0.10",
                cluster,
                "ndots:1",
            ),
        ] {
            let dns = dns_config(&pod(spec), &config(), HOST);
            assert_eq!(dns.servers.join(" "), servers, "{spec}");
            assert_eq!(dns.searches.join(" "), searches, "{spec}");
            assert_eq!(dns.options.join(" "), options, "{spec}");
        }
    }

    #[test]
    fn host_names() {
        for (spec, uts) in [
            ("containers: []", "web"),
            ("{hostname: h, containers: []}", "h"),
            ("{hostNetwork: true, containers: []}", "n1"),
            (
                "{subdomain: s, setHostnameAsFQDN: true, containers: []}",
                "web.s.default.svc.cluster.local",
            ),
        ] {
            assert_eq!(uts_name(&pod(spec), &config()), uts, "{spec}");
        }
    }
}
