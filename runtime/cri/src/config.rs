//! What the CRI server is told ([`RawConfig`], as typed) and what is true
//! ([`Config`], checked and complete).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The configuration as it stands in a file or on a command line; every key may
/// be left out. Read without touching the machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// The unix socket to serve on; default `/run/berth/cri.sock`.
    pub socket: Option<PathBuf>,
    /// Live records and monitor sockets; default `/run/berth`. Must not survive a reboot.
    pub state_dir: Option<PathBuf>,
    /// Records that survive a reboot; default `/var/lib/berth/cri`.
    pub data_dir: Option<PathBuf>,
    /// Where images and snapshots live, and how registries are found.
    pub images: RawImages,
    /// Pod networking.
    pub cni: RawCni,
    /// The log of what was started, executed, changed and pulled.
    pub audit: RawAudit,
    /// The `berth-monitor` program; default: next to the running program.
    pub monitor_path: Option<PathBuf>,
    /// The `berth-pause` program; default: next to the running program.
    pub pause_path: Option<PathBuf>,
    /// Start although cgroup v2 has no controllers here; limits are then not enforced.
    pub allow_degraded_cgroups: bool,
    /// Parent of the cgroups of pods that name none, below the cgroup2 mount; default `/berth`.
    pub cgroup_root: Option<String>,
    /// The capabilities a container has when the request changes none; default `containerd`.
    pub default_capabilities: CapabilitySet,
    /// RuntimeClass handlers beside the built-in one, by name.
    pub runtimes: BTreeMap<String, RawRuntime>,
    /// Address of the streaming server; default `127.0.0.1:0`.
    pub streaming_address: Option<SocketAddr>,
}

/// The image part of [`RawConfig`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawImages {
    /// Default `/var/lib/berth/images`.
    pub root: Option<PathBuf>,
    /// Directory of `<host>/hosts.toml`; default `/etc/berth/certs.d`.
    pub hosts_dir: Option<PathBuf>,
    /// Downloads at once; default 4.
    pub max_parallel: Option<usize>,
}

/// The network part of [`RawConfig`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCni {
    /// Directory of network configuration lists; default `/etc/cni/net.d`.
    pub conf_dir: Option<PathBuf>,
    /// Directories of plugin programs, searched in order; default `/opt/cni/bin`.
    pub bin_dirs: Option<Vec<PathBuf>>,
    /// Where results of ADD are kept for DEL; default `<data_dir>/cni`.
    pub cache_dir: Option<PathBuf>,
    /// The subnet written as the default network when `conf_dir` holds none;
    /// default `10.88.0.0/16`, the empty string writes nothing.
    pub default_subnet: Option<String>,
}

/// The audit part of [`RawConfig`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAudit {
    /// Directory of the log; default `/var/log/berth/audit`.
    pub dir: Option<PathBuf>,
    /// Refuse what cannot be recorded; default true. Otherwise it happens, and the
    /// container's status says that it was not recorded.
    pub required: Option<bool>,
    /// Size of one file of the log, in MiB; default 16.
    pub max_file_mib: Option<u64>,
    /// Most files of the log, at least 2; default 16.
    pub max_files: Option<usize>,
}

/// One RuntimeClass handler that runs another OCI runtime.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRuntime {
    /// The OCI runtime program.
    pub binary: PathBuf,
    /// Its `--root`; default `<state_dir>/runtimes/<handler>`.
    pub root: Option<PathBuf>,
    /// Whether it is told to ask systemd for cgroups.
    #[serde(default)]
    pub systemd_cgroup: bool,
}

/// The two default capability sets in use (docs/cri.md).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapabilitySet {
    /// CRI-O's nine.
    Minimal,
    /// containerd's fourteen.
    #[default]
    Containerd,
}

/// What a RuntimeClass handler starts containers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// The monitor's own launcher.
    Native,
    /// Another OCI runtime's program.
    Command {
        /// The program, an absolute path to a file.
        binary: PathBuf,
        /// Its state directory.
        root: PathBuf,
        /// Whether it asks systemd for cgroups.
        systemd_cgroup: bool,
    },
}

/// The configuration the server runs with: every path absolute, programs present.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`RawConfig::socket`].
    pub socket: PathBuf,
    /// See [`RawConfig::state_dir`].
    pub state_dir: PathBuf,
    /// See [`RawConfig::data_dir`].
    pub data_dir: PathBuf,
    /// See [`RawImages`].
    pub images: Images,
    /// See [`RawCni`].
    pub cni: Cni,
    /// See [`RawAudit`].
    pub audit: Audit,
    /// See [`RawConfig::monitor_path`].
    pub monitor_path: PathBuf,
    /// See [`RawConfig::pause_path`].
    pub pause_path: PathBuf,
    /// See [`RawConfig::allow_degraded_cgroups`].
    pub allow_degraded_cgroups: bool,
    /// See [`RawConfig::cgroup_root`]; starts with `/`, has no `..`.
    pub cgroup_root: String,
    /// See [`RawConfig::default_capabilities`].
    pub default_capabilities: CapabilitySet,
    /// By RuntimeClass handler; the empty name is always there.
    pub runtimes: BTreeMap<String, Runtime>,
    /// See [`RawConfig::streaming_address`].
    pub streaming_address: SocketAddr,
}

/// See [`RawImages`].
#[derive(Debug, Clone)]
pub struct Images {
    /// See [`RawImages::root`].
    pub root: PathBuf,
    /// See [`RawImages::hosts_dir`].
    pub hosts_dir: PathBuf,
    /// See [`RawImages::max_parallel`]; at least one.
    pub max_parallel: usize,
}

/// See [`RawCni`].
#[derive(Debug, Clone)]
pub struct Cni {
    /// See [`RawCni::conf_dir`].
    pub conf_dir: PathBuf,
    /// See [`RawCni::bin_dirs`].
    pub bin_dirs: Vec<PathBuf>,
    /// See [`RawCni::cache_dir`].
    pub cache_dir: PathBuf,
    /// None: an empty `conf_dir` stays empty and NetworkReady is false.
    pub default_subnet: Option<String>,
}

/// See [`RawAudit`].
#[derive(Debug, Clone)]
pub struct Audit {
    /// See [`RawAudit::dir`].
    pub dir: PathBuf,
    /// Directory of the node's keys, `<data_dir>/audit`.
    pub keys: PathBuf,
    /// See [`RawAudit::required`].
    pub required: bool,
    /// See [`RawAudit::max_file_mib`] and [`RawAudit::max_files`].
    pub limits: berth_audit::Limits,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A path must be absolute.
    #[error("`{key}` is not an absolute path: `{path}`")]
    Relative {
        /// The configuration key.
        key: String,
        /// What was given.
        path: PathBuf,
    },
    /// A program is not there.
    #[error("`{key}`: no program at `{path}`")]
    NoProgram {
        /// The configuration key.
        key: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The folder of the running program is unknown.
    #[error("cannot tell where this program lies")]
    OwnPath(#[source] std::io::Error),
    /// A cgroup path that leaves the tree.
    #[error("`cgroup_root` must be a path without `..`: `{0}`")]
    CgroupRoot(String),
    /// A log that would keep nothing.
    #[error("`{key}` must be at least {least}: {given}")]
    TooSmall {
        /// The configuration key.
        key: &'static str,
        /// The least that makes sense.
        least: u64,
        /// What was given.
        given: u64,
    },
}

impl Config {
    /// Completes and checks `raw`.
    pub fn resolve(raw: RawConfig) -> Result<Config, ConfigError> {
        let state_dir = absolute("state_dir", raw.state_dir, "/run/berth")?;
        let data_dir = absolute("data_dir", raw.data_dir, "/var/lib/berth/cri")?;
        let cgroup_root = raw.cgroup_root.unwrap_or_else(|| "/berth".to_owned());
        if cgroup_root.split('/').any(|part| part == "..") {
            return Err(ConfigError::CgroupRoot(cgroup_root));
        }
        Ok(Config {
            socket: match raw.socket {
                Some(socket) => absolute("socket", Some(socket), "")?,
                None => state_dir.join("cri.sock"),
            },
            images: Images {
                root: absolute("images.root", raw.images.root, "/var/lib/berth/images")?,
                hosts_dir: absolute(
                    "images.hosts_dir",
                    raw.images.hosts_dir,
                    "/etc/berth/certs.d",
                )?,
                max_parallel: raw.images.max_parallel.unwrap_or(4).max(1),
            },
            cni: resolve_cni(raw.cni, &data_dir)?,
            audit: resolve_audit(raw.audit, &data_dir)?,
            monitor_path: program("monitor_path", raw.monitor_path, "berth-monitor")?,
            pause_path: program("pause_path", raw.pause_path, "berth-pause")?,
            allow_degraded_cgroups: raw.allow_degraded_cgroups,
            cgroup_root: format!("/{}", cgroup_root.trim_matches('/')),
            default_capabilities: raw.default_capabilities,
            runtimes: resolve_runtimes(raw.runtimes, &state_dir)?,
            streaming_address: raw
                .streaming_address
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            state_dir,
            data_dir,
        })
    }
}

fn resolve_cni(raw: RawCni, data_dir: &Path) -> Result<Cni, ConfigError> {
    let subnet = raw
        .default_subnet
        .unwrap_or_else(|| "10.88.0.0/16".to_owned());
    Ok(Cni {
        conf_dir: absolute("cni.conf_dir", raw.conf_dir, "/etc/cni/net.d")?,
        bin_dirs: raw
            .bin_dirs
            .unwrap_or_else(|| vec![PathBuf::from("/opt/cni/bin")]),
        cache_dir: match raw.cache_dir {
            Some(dir) => absolute("cni.cache_dir", Some(dir), "")?,
            None => data_dir.join("cni"),
        },
        default_subnet: Some(subnet).filter(|subnet| !subnet.is_empty()),
    })
}

fn resolve_audit(raw: RawAudit, data_dir: &Path) -> Result<Audit, ConfigError> {
    let at_least = |key, least, given| match given < least {
        true => Err(ConfigError::TooSmall { key, least, given }),
        false => Ok(given),
    };
    let mib = at_least("audit.max_file_mib", 1, raw.max_file_mib.unwrap_or(16))?;
    let max_files = raw.max_files.unwrap_or(16);
    at_least("audit.max_files", 2, max_files as u64)?;
    Ok(Audit {
        dir: absolute("audit.dir", raw.dir, "/var/log/berth/audit")?,
        keys: data_dir.join("audit"),
        required: raw.required.unwrap_or(true),
        limits: berth_audit::Limits {
            max_file_bytes: mib.saturating_mul(1024 * 1024),
            max_files,
        },
    })
}

fn resolve_runtimes(
    raw: BTreeMap<String, RawRuntime>,
    state_dir: &Path,
) -> Result<BTreeMap<String, Runtime>, ConfigError> {
    let mut runtimes = BTreeMap::from([(String::new(), Runtime::Native)]);
    for (name, runtime) in raw {
        let key = format!("runtimes.{name}.binary");
        let root = match runtime.root {
            Some(root) => absolute(&format!("runtimes.{name}.root"), Some(root), "")?,
            None => state_dir.join("runtimes").join(&name),
        };
        let resolved = Runtime::Command {
            binary: program(&key, Some(runtime.binary), "")?,
            root,
            systemd_cgroup: runtime.systemd_cgroup,
        };
        runtimes.insert(name, resolved);
    }
    Ok(runtimes)
}

fn absolute(key: &str, given: Option<PathBuf>, default: &str) -> Result<PathBuf, ConfigError> {
    let path = given.unwrap_or_else(|| PathBuf::from(default));
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(ConfigError::Relative {
            key: key.to_owned(),
            path,
        })
    }
}

/// The program at `given`, or `name` next to the running program.
fn program(key: &str, given: Option<PathBuf>, name: &str) -> Result<PathBuf, ConfigError> {
    let path = match given {
        Some(path) => absolute(key, Some(path), "")?,
        None => {
            let own = std::env::current_exe().map_err(ConfigError::OwnPath)?;
            own.with_file_name(name)
        }
    };
    std::fs::metadata(&path).map_err(|source| ConfigError::NoProgram {
        key: key.to_owned(),
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawConfig {
        let programs = "monitor_path = '/bin/sh'\npause_path = '/bin/sh'\n";
        toml::from_str(&format!("{programs}{text}")).unwrap()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = Config::resolve(raw("")).unwrap();
        assert_eq!(config.socket, Path::new("/run/berth/cri.sock"));
        assert_eq!(config.cni.default_subnet.as_deref(), Some("10.88.0.0/16"));
        assert_eq!(config.runtimes.get(""), Some(&Runtime::Native));
        assert_eq!(config.cgroup_root, "/berth");
        assert_eq!(config.audit.dir, Path::new("/var/log/berth/audit"));
        assert!(config.audit.required);
    }

    #[test]
    fn an_empty_subnet_writes_no_network() {
        let config = Config::resolve(raw("[cni]\ndefault_subnet = ''")).unwrap();
        assert_eq!(config.cni.default_subnet, None);
    }

    #[test]
    fn bad_values_are_refused_by_key() {
        let relative = Config::resolve(raw("state_dir = 'run'")).unwrap_err();
        assert_eq!(
            relative.to_string(),
            "`state_dir` is not an absolute path: `run`"
        );
        let missing = Config::resolve(raw("[runtimes.kata]\nbinary = '/nonexistent/kata'"));
        assert_eq!(
            missing.unwrap_err().to_string(),
            "`runtimes.kata.binary`: no program at `/nonexistent/kata`"
        );
        assert!(Config::resolve(raw("cgroup_root = '/a/../b'")).is_err());
        assert_eq!(
            Config::resolve(raw("audit.max_files = 1"))
                .unwrap_err()
                .to_string(),
            "`audit.max_files` must be at least 2: 1"
        );
        assert!(toml::from_str::<RawConfig>("sokket = '/a'").is_err());
    }
}
