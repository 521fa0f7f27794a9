//! The options of `host-local`, under `ipam` in the network configuration.

use std::path::PathBuf;

use berth_cni::{Call, CniError, Code, Dns, Route};
use serde::Deserialize;

use crate::range::{Range, RawRange};

/// Where leases live when the configuration names no folder: the reference plugin's place.
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

#[derive(Deserialize)]
struct Document {
    ipam: Option<RawConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    #[serde(default)]
    ranges: Vec<Vec<RawRange>>,
    subnet: Option<String>,
    range_start: Option<std::net::IpAddr>,
    range_end: Option<std::net::IpAddr>,
    gateway: Option<std::net::IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
    data_dir: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
}

/// The options, checked.
pub(crate) struct Config {
    pub data_dir: PathBuf,
    /// One address is given from each set.
    pub ranges: Vec<Vec<Range>>,
    pub routes: Vec<Route>,
    pub dns: Dns,
}

impl Config {
    pub fn from_call(call: &Call<'_>) -> Result<Config, CniError> {
        let invalid =
            |reason: String| CniError::new(Code::InvalidConfig, format!("host-local: {reason}"));
        let raw = call
            .config
            .options::<Document>()?
            .ipam
            .ok_or_else(|| invalid("ipam is required".into()))?;
        let mut sets = raw.ranges;
        if let Some(subnet) = raw.subnet {
            // The old form: one range beside `ranges`, and before it.
            sets.insert(
                0,
                vec![RawRange {
                    subnet,
                    range_start: raw.range_start,
                    range_end: raw.range_end,
                    gateway: raw.gateway,
                }],
            );
        }
        if sets.is_empty() || sets.iter().any(Vec::is_empty) {
            return Err(invalid(
                "ipam.ranges: at least one range is required".into(),
            ));
        }
        if call.args.iter().any(|(key, _)| key == "IP")
            || call.config.runtime_config("ips").is_some()
            || call.config.runtime_config("ipRanges").is_some()
        {
            return Err(CniError::new(
                Code::UnsupportedField,
                "host-local: asking for a certain address (IP, ips, ipRanges) is not supported",
            ));
        }
        let ranges = sets
            .iter()
            .enumerate()
            .map(|(i, set)| {
                set.iter()
                    .enumerate()
                    .map(|(j, raw)| {
                        Range::from_raw(raw)
                            .map_err(|e| invalid(format!("ipam.ranges[{i}][{j}]: {e}")))
                    })
                    .collect()
            })
            .collect::<Result<_, _>>()?;
        Ok(Config {
            data_dir: raw.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            ranges,
            routes: raw.routes,
            dns: raw
                .resolv_conf
                .map(read_resolv_conf)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

fn read_resolv_conf(path: PathBuf) -> Result<Dns, CniError> {
    let text = std::fs::read_to_string(&path).map_err(|e| {
        CniError::caused(
            Code::Io,
            format!("host-local: cannot read `{}`", path.display()),
            e,
        )
    })?;
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}
