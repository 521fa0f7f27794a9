//! Masquerading of what leaves the pods' subnet: one nftables table a network,
//! made once, so that an ADD starts no program.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use berth_cni::{CniError, CniResult, Code};
use berth_netlink::nft;

/// Networks whose table this process has made.
static MADE: Mutex<Option<HashSet<String>>> = Mutex::new(None);

fn table(network: &str) -> String {
    let name: String = network
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("cni_masq_{name}")
}

/// Makes the table unless this process already has.
pub(crate) fn ensure(network: &str, bridge: &str, result: &CniResult) -> Result<(), CniError> {
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if made.contains(network) {
        return Ok(());
    }
    nft::apply("masquerade the pods", &ruleset(network, bridge, result))
        .map_err(|e| CniError::from_source(Code::Kernel, "bridge: cannot masquerade", &e))?;
    made.insert(network.to_owned());
    Ok(())
}

/// Removes the table of a network; nothing to do when there is none.
///
/// # Errors
/// nft's refusal.
pub fn remove(network: &str) -> Result<(), nft::NftError> {
    let table = table(network);
    if let Some(made) = MADE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        made.remove(network);
    }
    // Declaring it first makes the deletion succeed when it is not there.
    nft::apply(
        "remove the masquerade table",
        &format!("table inet {table}\ndelete table inet {table}\n"),
    )
}

fn ruleset(network: &str, bridge: &str, result: &CniResult) -> String {
    let table = table(network);
    let mut rules = String::new();
    for ip in &result.ips {
        let Some((address, _)) = ip.parse() else {
            continue;
        };
        let (family, multicast) = if address.is_ipv4() {
            ("ip", "224.0.0.0/4")
        } else {
            ("ip6", "ff00::/8")
        };
        // nft reduces an address with a prefix length to its network.
        let subnet = &ip.address;
        rules.push_str(&format!(
            "    {family} saddr {subnet} {family} daddr != {{ {subnet}, {multicast} }} oifname != \"{bridge}\" masquerade\n"
        ));
    }
    format!(
        "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n  chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n{rules}  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_cni::IpConfig;

    #[test]
    fn the_table_is_replaced_as_a_whole() {
        let result = CniResult {
            ips: vec![IpConfig {
                address: "10.88.0.2/16".into(),
                gateway: None,
                interface: None,
            }],
            ..CniResult::default()
        };
        let text = ruleset("my-net", "berth0", &result);
        assert!(
            text.starts_with("table inet cni_masq_my_net\ndelete table inet cni_masq_my_net\n")
        );
        assert!(text.contains("ip saddr 10.88.0.2/16 ip daddr != { 10.88.0.2/16, 224.0.0.0/4 } oifname != \"berth0\" masquerade"));
    }
}
