//! The result of ADD (specification section 5, "Success").

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::version;

/// What an ADD made: the interfaces, addresses, routes and name servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniResult {
    /// The version of this document.
    #[serde(default)]
    pub cni_version: String,
    /// Interfaces made, on the host and in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// Routes made in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name servers to be used by the container.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes (1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace it is in; empty for the host's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Address and prefix length, `10.88.0.5/16`.
    pub address: String,
    /// The gateway of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into [`CniResult::interfaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

impl IpConfig {
    /// The address and its prefix length; `None` when the text is not a CIDR.
    pub fn parse(&self) -> Option<(IpAddr, u8)> {
        let (address, prefix) = self.address.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    }
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination as a CIDR.
    pub dst: String,
    /// Next hop; the gateway of the address when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Name server settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of name servers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search list, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

impl CniResult {
    /// The document in the version that the configuration asked for.
    pub fn to_json(&self, cni_version: &str) -> String {
        let mut own = self.clone();
        own.cni_version = cni_version.to_owned();
        let mut document = serde_json::json!(own);
        let Some(ips) = document.get_mut("ips").and_then(|ips| ips.as_array_mut()) else {
            return document.to_string();
        };
        if version::has_ip_version_field(cni_version) {
            for (ip, config) in ips.iter_mut().zip(&self.ips) {
                let family = match config.parse() {
                    Some((IpAddr::V6(_), _)) => "6",
                    _ => "4",
                };
                ip["version"] = family.into();
            }
        }
        document.to_string()
    }

    /// The first address of each family, without its prefix, in the order given.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ips
            .iter()
            .filter_map(|ip| Some(ip.parse()?.0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_version_appears_only_before_1_0_0() {
        let result = CniResult {
            ips: vec![IpConfig {
                address: "10.1.0.2/16".into(),
                gateway: Some("10.1.0.1".parse().unwrap()),
                interface: Some(1),
            }],
            ..CniResult::default()
        };
        assert!(result.to_json("0.4.0").contains(r#""version":"4""#));
        assert!(!result.to_json("1.0.0").contains(r#""version":"4""#));
        let read: CniResult = serde_json::from_str(&result.to_json("0.4.0")).unwrap();
        assert_eq!(read.ips, result.ips);
    }
}
