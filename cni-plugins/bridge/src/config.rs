//! The options of `bridge`.

use berth_cni::{CniError, Code, PluginConf};
use serde::Deserialize;
use serde_json::Value;

/// Longest name of a link (IFNAMSIZ less its NUL).
const MAX_NAME: usize = 15;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    #[serde(default = "default_bridge")]
    bridge: String,
    #[serde(default)]
    is_gateway: bool,
    #[serde(default)]
    is_default_gateway: bool,
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    hairpin_mode: bool,
    #[serde(default)]
    promisc_mode: bool,
    #[serde(default)]
    mtu: u32,
}

fn default_bridge() -> String {
    "cni0".into()
}

/// The options, checked.
pub(crate) struct Config {
    pub bridge: String,
    /// The bridge gets the gateway's address.
    pub is_gateway: bool,
    /// The gateway becomes the container's default route.
    pub is_default_gateway: bool,
    pub ip_masq: bool,
    pub hairpin: bool,
    pub promiscuous: bool,
    pub mtu: Option<u32>,
    pub ipam: Option<String>,
}

/// Options of the reference plugin that this one does not have; each is refused
/// when set to anything but its neutral value.
const UNSUPPORTED: &[&str] = &[
    "vlan",
    "vlanTrunk",
    "preserveDefaultVlan",
    "macspoofchk",
    "enabledad",
    "forceAddress",
    "disableContainerInterface",
    "portIsolation",
    "ipMasqBackend",
    "uplinkInterface",
];

impl Config {
    pub fn from_conf(conf: &PluginConf) -> Result<Config, CniError> {
        for name in UNSUPPORTED {
            let neutral = match conf.0.get(*name) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Number(n)) => n.as_u64() == Some(0),
                Some(Value::Array(list)) => list.is_empty(),
                Some(Value::String(text)) => *name == "ipMasqBackend" && text == "nftables",
                Some(_) => false,
            };
            if !neutral {
                return Err(CniError::new(
                    Code::UnsupportedField,
                    format!("bridge: {name} is not supported"),
                ));
            }
        }
        let raw: RawConfig = conf.options()?;
        if raw.bridge.is_empty()
            || raw.bridge.len() > MAX_NAME
            || raw.bridge.contains(['/', ' ', ':'])
        {
            return Err(CniError::new(
                Code::InvalidConfig,
                format!(
                    "bridge: bridge {:?} is not a link name (at most {MAX_NAME} characters)",
                    raw.bridge
                ),
            ));
        }
        Ok(Config {
            bridge: raw.bridge,
            is_gateway: raw.is_gateway || raw.is_default_gateway,
            is_default_gateway: raw.is_default_gateway,
            ip_masq: raw.ip_masq,
            hairpin: raw.hairpin_mode,
            promiscuous: raw.promisc_mode,
            mtu: Some(raw.mtu).filter(|mtu| *mtu > 0),
            ipam: conf.ipam_kind().map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: Value) -> Result<Config, CniError> {
        Config::from_conf(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn unsupported_options_are_refused_by_name() {
        for (name, value) in [
            ("vlan", 5.into()),
            ("macspoofchk", true.into()),
            ("vlanTrunk", serde_json::json!([{"id": 1}])),
        ] {
            let mut conf = serde_json::json!({"type": "bridge"});
            conf[name] = value;
            let error = config(conf).err().unwrap();
            assert_eq!(error.kind(), Some(Code::UnsupportedField));
            assert!(error.msg.contains(name));
        }
        assert!(
            config(serde_json::json!({"type": "bridge", "vlan": 0, "macspoofchk": false})).is_ok()
        );
    }

    #[test]
    fn bridge_names_are_link_names() {
        assert!(config(serde_json::json!({"bridge": "a/b"})).is_err());
        assert!(config(serde_json::json!({"bridge": "sixteencharacter"})).is_err());
        assert_eq!(config(serde_json::json!({})).unwrap().bridge, "cni0");
    }
}
