//! `/etc/berth/config.toml` and its drop-ins, as typed. Each part resolves its own table.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What the file may hold; a flag of the command line goes before it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// The CRI server.
    pub cri: berth_cri::RawConfig,
    /// The kubelet.
    pub kubelet: berth_kubelet::RawConfig,
    /// The control plane.
    pub server: Server,
}

/// The `[server]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// PKI, kubeconfigs and the store; default `/var/lib/berth/server`.
    pub data_dir: Option<PathBuf>,
    /// Where HTTPS is served; default `0.0.0.0:6443`.
    pub listen: Option<SocketAddr>,
    /// The address under which nodes and pods reach the server; default: the source
    /// address of the default route.
    pub advertise_address: Option<IpAddr>,
}

/// Why the configuration cannot be used; exit status 64.
#[derive(Debug)]
pub enum ConfigError {
    /// A file cannot be read.
    Read(PathBuf, std::io::Error),
    /// A file is not valid; the text names the place and the rule.
    Invalid(PathBuf, String),
    /// A value is out of place.
    Value(String),
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigError::Read(path, error) => write!(
                f,
                "cannot read the configuration `{}`: {error}",
                path.display()
            ),
            ConfigError::Invalid(path, reason) => {
                write!(f, "configuration `{}`: {reason}", path.display())
            }
            ConfigError::Value(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

impl File {
    /// Reads the file and its drop-ins; a later one goes before an earlier one, key by
    /// key. A missing file is an empty one.
    pub fn load(path: &Path) -> Result<File, ConfigError> {
        let mut merged = read(path)?.unwrap_or_default();
        for path in drop_ins(path)? {
            if let Some(table) = read(&path)? {
                merge(&mut merged, table);
            }
        }
        File::deserialize(toml::Value::Table(merged))
            .map_err(|error| ConfigError::Invalid(path.into(), error.message().to_owned()))
    }
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let dir = path.with_file_name("config.d");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ConfigError::Read(dir, error)),
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Option<toml::Table>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text)
            .map(Some)
            .map_err(|error| ConfigError::Invalid(path.into(), error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::Read(path.into(), error)),
    }
}

/// One file; each must be right by itself, so that an error names its file and line.
fn parse(text: &str) -> Result<toml::Table, toml::de::Error> {
    toml::from_str::<File>(text)?;
    text.parse()
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(held)), toml::Value::Table(more)) => merge(held, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_go_before_the_file_key_by_key() {
        let dir = std::env::temp_dir().join(format!("berth-config-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("config.d")).unwrap();
        let file = dir.join("config.toml");
        std::fs::write(&file, "[kubelet]\nmax_pods = 5\nnode_name = \"a\"\n").unwrap();
        std::fs::write(dir.join("config.d/20.toml"), "[kubelet]\nmax_pods = 7\n").unwrap();
        std::fs::write(dir.join("config.d/10.toml"), "[kubelet]\nmax_pods = 6\n").unwrap();
        let read = File::load(&file).unwrap();
        assert_eq!(read.kubelet.max_pods, Some(7));
        assert_eq!(read.kubelet.node_name.as_deref(), Some("a"));
        std::fs::write(&file, "[kubelet]\nmax_podz = 5\n").unwrap();
        let error = File::load(&file).unwrap_err().to_string();
        assert!(error.contains("max_podz"), "{error}");
        std::fs::write(&file, "").unwrap();
        std::fs::write(dir.join("config.d/10.toml"), "[kubelet]\nmax_pods = -3\n").unwrap();
        let error = File::load(&file).unwrap_err().to_string();
        assert!(
            error.contains("10.toml") && error.contains("max_pods"),
            "{error}"
        );
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_file_is_an_empty_one() {
        assert!(File::load(Path::new("/nonexistent/config.toml")).is_ok());
    }
}
