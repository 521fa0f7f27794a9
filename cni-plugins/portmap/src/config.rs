//! The mappings asked for: `runtimeConfig.portMappings`.

use std::net::IpAddr;

use berth_cni::{Call, CniError, Code};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMapping {
    host_port: i64,
    container_port: i64,
    #[serde(default)]
    protocol: String,
    #[serde(rename = "hostIP", default)]
    host_ip: String,
}

/// One host port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: &'static str,
    /// Only this address of the host; all when absent.
    pub host_ip: Option<IpAddr>,
}

/// The mappings, checked.
pub(crate) struct Config {
    pub mappings: Vec<Mapping>,
}

impl Config {
    pub fn from_call(call: &Call<'_>) -> Result<Config, CniError> {
        let Some(value) = call.config.runtime_config("portMappings") else {
            return Ok(Config {
                mappings: Vec::new(),
            });
        };
        let raw = Vec::<RawMapping>::deserialize(value).map_err(|e| {
            CniError::caused(Code::Decode, "portmap: cannot decode portMappings", e)
        })?;
        let mappings = raw
            .iter()
            .enumerate()
            .filter(|(_, raw)| raw.host_port != 0)
            .map(|(i, raw)| {
                parse(raw).map_err(|e| {
                    CniError::new(
                        Code::InvalidConfig,
                        format!("portmap: portMappings[{i}].{e}"),
                    )
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Config { mappings })
    }
}

fn parse(raw: &RawMapping) -> Result<Mapping, String> {
    let port = |name: &str, number: i64| match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{name}: {number} is not a port")),
    };
    let protocol = match raw.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        other => return Err(format!("protocol: {other:?} is not tcp, udp or sctp")),
    };
    let host_ip = match raw.host_ip.as_str() {
        "" => None,
        text => match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => None,
            Ok(ip) => Some(ip),
            Err(_) => return Err(format!("hostIP: {text:?} is not an address")),
        },
    };
    Ok(Mapping {
        host_port: port("hostPort", raw.host_port)?,
        container_port: port("containerPort", raw.container_port)?,
        protocol,
        host_ip,
    })
}
