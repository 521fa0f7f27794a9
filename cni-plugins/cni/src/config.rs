//! Network configurations: a list of plugins with a name (specification section 1).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{CniError, CniResult, Code, version};

/// Configuration files larger than this are refused.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A network: its name and its chain of plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConfList {
    /// Version of the specification that the plugins are called with.
    pub cni_version: String,
    /// Name of the network, unique on the host.
    pub name: String,
    /// CHECK is not called when set.
    #[serde(default)]
    pub disable_check: bool,
    /// The chain, in order of ADD.
    pub plugins: Vec<PluginConf>,
}

/// The configuration of one plugin: a JSON object of which `type` is required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PluginConf(pub Map<String, Value>);

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The folder cannot be listed.
    #[error("cannot read the CNI configuration folder `{path}`")]
    ReadDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the CNI configuration `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any real one.
    #[error("the CNI configuration `{path}` is larger than 1 MiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a configuration.
    #[error("the CNI configuration `{path}` is not valid: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field and the rule.
        reason: String,
    },
}

/// Loads the first usable file of the folder in lexical order, as containerd
/// does with `max_conf_num = 1`. `None` when the folder is absent or holds none.
///
/// # Errors
/// The first file (`.conflist`, `.conf`, `.json`) is unreadable or invalid: a
/// broken first file is an error, never skipped for the next.
pub fn load_dir(dir: &Path) -> Result<Option<NetConfList>, ConfigError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ConfigError::ReadDir {
                path: dir.into(),
                source,
            });
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let extension = path.extension().and_then(|e| e.to_str());
            matches!(extension, Some("conflist" | "conf" | "json"))
        })
        .collect();
    files.sort();
    files.first().map(|path| load_file(path)).transpose()
}

/// Loads one file; a single plugin (`.conf`) becomes a list of one.
///
/// # Errors
/// The file is unreadable, too large, or not a configuration.
pub fn load_file(path: &Path) -> Result<NetConfList, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.into(),
        source,
    };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { path: path.into() });
    }
    let bytes = std::fs::read(path).map_err(read)?;
    parse(&bytes).map_err(|reason| ConfigError::Invalid {
        path: path.into(),
        reason,
    })
}

/// Parses a list or a single plugin; the error names the field and the rule.
///
/// # Errors
/// Text for [`ConfigError::Invalid`].
pub fn parse(bytes: &[u8]) -> Result<NetConfList, String> {
    let document: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|e| format!("not a JSON object: {e}"))?;
    let list: NetConfList = if document.contains_key("plugins") {
        serde_json::from_value(Value::Object(document)).map_err(|e| e.to_string())?
    } else {
        single(document)?
    };
    if !is_plain_name(&list.name) {
        return Err(format!("name: {:?} is not a network name", list.name));
    }
    version::ensure_supported(&list.cni_version).map_err(|e| format!("cniVersion: {e}"))?;
    if list.plugins.is_empty() {
        return Err("plugins: at least one is required".into());
    }
    for (i, plugin) in list.plugins.iter().enumerate() {
        plugin
            .kind()
            .map_err(|e| format!("plugins[{i}].type: {e}"))?;
    }
    Ok(list)
}

fn single(document: Map<String, Value>) -> Result<NetConfList, String> {
    let text = |key: &str| {
        document
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or(format!("{key}: a string is required"))
    };
    Ok(NetConfList {
        cni_version: text("cniVersion")?,
        name: text("name")?,
        disable_check: false,
        plugins: vec![PluginConf(document)],
    })
}

/// Letters, digits, `.`, `_` and `-`, beginning with a letter or digit: the
/// specification's rule for names, and what keeps a type from being a path
/// (CVE-2021-20206).
pub(crate) fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

impl PluginConf {
    /// The plugin's type: a plain name, never a path.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`] when absent or not a plain name.
    pub fn kind(&self) -> Result<&str, CniError> {
        match self.0.get("type").and_then(Value::as_str) {
            Some(kind) if is_plain_name(kind) => Ok(kind),
            Some(kind) => Err(CniError::new(
                Code::InvalidConfig,
                format!("plugin type {kind:?} is not a plain name"),
            )),
            None => Err(CniError::new(Code::InvalidConfig, "type is required")),
        }
    }

    /// The name of the network that the configuration belongs to.
    pub fn network(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or("")
    }

    /// The version asked for; 1.0.0 in configurations that name none.
    pub fn cni_version(&self) -> &str {
        self.0
            .get("cniVersion")
            .and_then(Value::as_str)
            .unwrap_or("1.0.0")
    }

    /// The plugin's own options as a typed value.
    ///
    /// # Errors
    /// [`Code::Decode`] naming the field.
    pub fn options<T: for<'de> Deserialize<'de>>(&self) -> Result<T, CniError> {
        T::deserialize(Value::Object(self.0.clone()))
            .map_err(|e| CniError::caused(Code::Decode, "cannot decode the plugin options", e))
    }

    /// The result of the plugin before this one in the chain.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is not a result.
    pub fn prev_result(&self) -> Result<Option<CniResult>, CniError> {
        self.0
            .get("prevResult")
            .map(CniResult::deserialize)
            .transpose()
            .map_err(|e| CniError::caused(Code::Decode, "cannot decode prevResult", e))
    }

    /// A value that the runtime passed for a capability (`runtimeConfig`).
    pub fn runtime_config(&self, key: &str) -> Option<&Value> {
        self.0.get("runtimeConfig")?.get(key)
    }

    /// The type of the IPAM plugin asked for, if any.
    pub fn ipam_kind(&self) -> Option<&str> {
        self.0.get("ipam")?.get("type")?.as_str()
    }
}

/// The network that berth writes when a host has none: a bridge `berth0`,
/// addresses from `subnet` with leases under `leases`, and host ports.
pub fn default_network(subnet: &str, leases: &Path) -> String {
    let document = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "berth",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "berth0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": leases,
                    "ranges": [[{ "subnet": subnet }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_network_is_valid() {
        let list = parse(default_network("10.88.0.0/16", Path::new("/run/x")).as_bytes()).unwrap();
        assert_eq!(list.name, "berth");
        assert_eq!(list.plugins[0].kind().unwrap(), "bridge");
        assert_eq!(list.plugins[0].ipam_kind(), Some("host-local"));
    }

    #[test]
    fn a_type_that_is_a_path_is_refused() {
        for kind in ["../../bin/sh", "/bin/sh", "a/b", "", "-x", "a\n"] {
            let text = serde_json::json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": kind}]});
            let error = parse(text.to_string().as_bytes()).unwrap_err();
            assert!(error.starts_with("plugins[0].type"), "{kind:?}: {error}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (text, field) in [
            (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "name"),
            (
                r#"{"cniVersion":"9.0.0","name":"n","plugins":[{"type":"x"}]}"#,
                "cniVersion",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#,
                "plugins",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"../n","plugins":[{"type":"x"}]}"#,
                "name",
            ),
            (r#"{"type":"bridge","name":"n"}"#, "cniVersion"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(field), "{text}: {error}");
        }
    }
}
