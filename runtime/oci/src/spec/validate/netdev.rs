//! `linux.netDevices`.

use berth_sys::ns::NamespaceKind;

use super::Errors;
use crate::plan::{Namespaces, NetDevice};
use crate::spec::config::Linux;

/// The kernel keeps 16 bytes of a device's name, the last of them zero (`IFNAMSIZ`).
const MAX_NAME: usize = 15;

/// Devices to move, sorted by their name on the host.
pub(super) fn devices(
    linux: &Linux,
    namespaces: &Namespaces,
    errors: &mut Errors,
) -> Vec<NetDevice> {
    let mut out: Vec<NetDevice> = Vec::new();
    for (outside, device) in &linux.net_devices {
        let field = format!("linux.netDevices.{outside}");
        if !namespaces.has_own(NamespaceKind::Net) {
            errors.add(&field, "needs its own network namespace");
        }
        let inside = Some(device.name.clone()).filter(|name| !name.is_empty());
        let inside = inside.unwrap_or_else(|| outside.clone());
        for name in [outside, &inside] {
            if !is_name(name) {
                errors.add(&field, format!("`{name}` is not the name of a device"));
                break;
            }
        }
        if out.iter().any(|other| other.inside == inside) {
            errors.add(&field, format!("`{inside}` is the name of two devices"));
        }
        out.push(NetDevice {
            outside: outside.clone(),
            inside,
        });
    }
    out
}

/// As `dev_valid_name` of the kernel; a colon means an alias to ifconfig(8).
fn is_name(name: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{paths, plan, with};

    #[test]
    fn devices_need_names_and_a_network_namespace() {
        let mut spec = with("/linux/namespaces/2", json!({"type": "network"}));
        spec["linux"]["netDevices"] = json!({"eth1": {}, "eth0": {"name": "net0"}});
        let devices = plan(&spec).unwrap().net_devices;
        assert_eq!(
            (devices[0].inside.as_str(), devices[1].inside.as_str()),
            ("net0", "eth1")
        );
        for (device, name) in [
            ("a/b", None),
            ("eth0", Some("sixteen-letters-")),
            ("..", None),
        ] {
            spec["linux"]["netDevices"] = json!({device: {"name": name}});
            assert_eq!(paths(&spec), [format!("linux.netDevices.{device}")]);
        }
        spec["linux"]["netDevices"] = json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}});
        assert_eq!(paths(&spec).len(), 1);
        let shared = with("/linux/netDevices", json!({"eth0": {}}));
        assert_eq!(paths(&shared), ["linux.netDevices.eth0"]);
    }
}
