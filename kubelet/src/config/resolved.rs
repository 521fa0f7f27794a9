//! The configuration as true: paths checked, defaults filled in, addresses found.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::RawConfig;
use crate::eviction::threshold::{self, Threshold, ThresholdError};
use crate::resources::quantity;

/// Everything the kubelet needs to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// Address reported as InternalIP and used as status.hostIP.
    pub node_ip: IpAddr,
    /// The CRI server's unix socket.
    pub cri_socket: PathBuf,
    /// Holds `pods/<uid>/{volumes,etc-hosts,containers}` and `pki`.
    pub root_dir: PathBuf,
    /// Holds `<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    pub pod_logs_dir: PathBuf,
    /// How to reach the API server; `None` means static pods only.
    pub kubeconfig: Option<PathBuf>,
    /// Static pod manifests; `None` means there are none.
    pub static_pod_dir: Option<PathBuf>,
    /// Name servers of `ClusterFirst` pods; empty means such pods use the host's.
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster, without a leading dot.
    pub cluster_domain: String,
    /// resolv.conf of `Default` pods.
    pub resolv_conf: PathBuf,
    /// Where and how pod cgroups are made.
    pub cgroup: CgroupConfig,
    /// The certificate of the HTTPS endpoints.
    pub serving: ServingCertificate,
    /// CA of the HTTPS clients; `None` means every request but health is refused.
    pub client_ca: Option<PathBuf>,
    /// HTTPS port; 0 means no server.
    pub port: u16,
    /// Plain HTTP health endpoint; `None` means off.
    pub healthz: Option<SocketAddr>,
    /// Most pods the node takes.
    pub max_pods: u32,
    /// Labels put on the Node at registration.
    pub node_labels: BTreeMap<String, String>,
    /// CPU kept from pods, in millicores.
    pub reserved_cpu_milli: i64,
    /// Memory kept from pods, in bytes.
    pub reserved_memory: i64,
    /// Longest time between two syncs of one pod (syncFrequency, 1 min).
    pub sync_frequency: Duration,
    /// Time a CRI call other than pulls and stops may take (runtimeRequestTimeout, 2 min).
    pub runtime_timeout: Duration,
    /// When container logs are rotated.
    pub container_logs: ContainerLogs,
    /// When pods are evicted.
    pub eviction: EvictionConfig,
    /// Largest restart back-off (crashLoopBackOff.maxContainerRestartPeriod, 300 s).
    pub max_backoff: Duration,
}

/// When container logs are rotated, and what is kept of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerLogs {
    /// Bytes from which on a log is rotated; `None` means never.
    pub max_size: Option<u64>,
    /// Most files of one log, the one being written among them; at least 2.
    pub max_files: usize,
    /// Time between two looks.
    pub interval: Duration,
}

/// When pods are evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionConfig {
    /// The least that must be left, in the order in which it is acted on.
    pub hard: Vec<Threshold>,
    /// How long a pressure condition outlives its signal.
    pub transition: Duration,
    /// Time between two looks (the stock kubelet's 10 s).
    pub interval: Duration,
}

/// Where and how pod cgroups are made.
#[derive(Debug, Clone)]
pub struct CgroupConfig {
    /// Path below the cgroup2 mount in which `kubepods` is made; `None` means the
    /// kubelet's own cgroup, the kubelet itself first moved to a leaf of it.
    pub root: Option<PathBuf>,
    /// Start although cgroup v2 has no controllers.
    pub allow_degraded: bool,
}

/// The certificate of the HTTPS endpoints.
#[derive(Debug, Clone)]
pub enum ServingCertificate {
    /// PEM files, read again when they change.
    Files { cert: PathBuf, key: PathBuf },
    /// Made at start for the node's name and address.
    SelfSigned,
}

/// Why a `RawConfig` cannot become a `Config`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A path that must be absolute is not.
    #[error("`{field}` must be an absolute path, not `{}`", path.display())]
    Relative { field: &'static str, path: PathBuf },
    /// A file named in the configuration is not there.
    #[error("cannot read `{field}` `{}`", path.display())]
    Unreadable {
        field: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Half of a pair is missing.
    #[error("`tls_cert` and `tls_key` must be given together")]
    HalfCertificate,
    /// The host's name cannot be a node name.
    #[error("`{0}` cannot be a node name: lower case letters, digits, `-` and `.` only")]
    NodeName(String),
    /// A threshold of eviction is none.
    #[error("`eviction_hard`")]
    Eviction(#[source] ThresholdError),
    /// A number is too small.
    #[error("`{field}` must be at least {least}, not {number}")]
    TooSmall {
        field: &'static str,
        least: u64,
        number: u64,
    },
    /// A quantity does not parse.
    #[error("`{field}`: `{text}` is not a quantity")]
    Quantity { field: &'static str, text: String },
}

impl Config {
    /// Fills in defaults, finds the node's name and address and checks every path.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn resolve(raw: RawConfig) -> Result<Config, ConfigError> {
        let container_logs = container_logs(&raw)?;
        let eviction = eviction(&raw)?;
        let node_name = node_name(raw.node_name)?;
        readable("kubeconfig", raw.kubeconfig.as_ref())?;
        readable("client_ca", raw.client_ca.as_ref())?;
        let serving = match (raw.tls_cert, raw.tls_key) {
            (Some(cert), Some(key)) => {
                readable("tls_cert", Some(&cert))?;
                readable("tls_key", Some(&key))?;
                ServingCertificate::Files { cert, key }
            }
            (None, None) => ServingCertificate::SelfSigned,
            _ => return Err(ConfigError::HalfCertificate),
        };
        Ok(Config {
            node_name,
            node_ip: raw.node_ip.unwrap_or_else(default_source_address),
            cri_socket: absolute("cri_socket", raw.cri_socket, "/run/berth/cri.sock")?,
            root_dir: absolute("root_dir", raw.root_dir, "/var/lib/berth/kubelet")?,
            pod_logs_dir: absolute("pod_logs_dir", raw.pod_logs_dir, "/var/log/pods")?,
            kubeconfig: raw.kubeconfig,
            static_pod_dir: raw.static_pod_dir,
            cluster_dns: raw.cluster_dns,
            cluster_domain: raw.cluster_domain.unwrap_or_else(|| "cluster.local".into()),
            resolv_conf: absolute("resolv_conf", raw.resolv_conf, "/etc/resolv.conf")?,
            cgroup: CgroupConfig {
                root: raw.cgroup_root,
                allow_degraded: raw.allow_degraded_cgroups,
            },
            serving,
            client_ca: raw.client_ca,
            port: raw.port.unwrap_or(10250),
            healthz: match raw.healthz_port.unwrap_or(10248) {
                0 => None,
                port => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            },
            max_pods: raw.max_pods.unwrap_or(110),
            node_labels: raw.node_labels,
            reserved_cpu_milli: amount("reserved_cpu", raw.reserved_cpu, quantity::milli)?,
            reserved_memory: amount("reserved_memory", raw.reserved_memory, quantity::value)?,
            sync_frequency: Duration::from_secs(60),
            runtime_timeout: Duration::from_secs(120),
            container_logs,
            eviction,
            max_backoff: Duration::from_secs(300),
        })
    }

    /// Directory of everything the kubelet keeps for one pod.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }
}

fn node_name(given: Option<String>) -> Result<String, ConfigError> {
    let name = given.unwrap_or_else(|| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_lowercase()
    });
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || !name.chars().all(legal) {
        return Err(ConfigError::NodeName(name));
    }
    Ok(name)
}

fn absolute(
    field: &'static str,
    given: Option<PathBuf>,
    default: &str,
) -> Result<PathBuf, ConfigError> {
    let path = given.unwrap_or_else(|| PathBuf::from(default));
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(ConfigError::Relative { field, path })
    }
}

fn readable(field: &'static str, path: Option<&PathBuf>) -> Result<(), ConfigError> {
    let Some(path) = path else { return Ok(()) };
    std::fs::File::open(path)
        .map(drop)
        .map_err(|source| ConfigError::Unreadable {
            field,
            path: path.clone(),
            source,
        })
}

fn amount(
    field: &'static str,
    text: Option<String>,
    parse: fn(&str) -> Option<i64>,
) -> Result<i64, ConfigError> {
    let Some(text) = text else { return Ok(0) };
    parse(&text).ok_or(ConfigError::Quantity { field, text })
}

fn container_logs(raw: &RawConfig) -> Result<ContainerLogs, ConfigError> {
    let field = "container_log_max_size";
    let size = match &raw.container_log_max_size {
        Some(_) => amount(field, raw.container_log_max_size.clone(), quantity::value)?,
        None => 10 << 20,
    };
    let files = u64::from(raw.container_log_max_files.unwrap_or(5));
    let interval = raw.container_log_monitor_interval.unwrap_or(10);
    Ok(ContainerLogs {
        max_size: u64::try_from(size).ok(),
        max_files: usize::try_from(at_least("container_log_max_files", 2, files)?)
            .unwrap_or(usize::MAX),
        interval: Duration::from_secs(at_least("container_log_monitor_interval", 3, interval)?),
    })
}

fn eviction(raw: &RawConfig) -> Result<EvictionConfig, ConfigError> {
    let merge = raw.merge_default_eviction_settings;
    let hard = match &raw.eviction_hard {
        Some(given) => threshold::parse(given, merge).map_err(ConfigError::Eviction)?,
        None => threshold::defaults(),
    };
    let transition = raw.eviction_pressure_transition_period.unwrap_or(300);
    Ok(EvictionConfig {
        hard,
        transition: Duration::from_secs(transition),
        interval: Duration::from_secs(10),
    })
}

fn at_least(field: &'static str, least: u64, number: u64) -> Result<u64, ConfigError> {
    match number >= least {
        true => Ok(number),
        false => Err(ConfigError::TooSmall {
            field,
            least,
            number,
        }),
    }
}

/// The address the default route would use: connecting a UDP socket sends nothing.
fn default_source_address() -> IpAddr {
    let find = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    find().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = Config::resolve(RawConfig {
            node_name: Some("n1".into()),
            ..RawConfig::default()
        })
        .unwrap();
        assert_eq!(config.port, 10250);
        assert_eq!(config.healthz.unwrap().to_string(), "127.0.0.1:10248");
        assert_eq!(config.max_pods, 110);
        assert_eq!(config.cluster_domain, "cluster.local");
        let logs = ContainerLogs {
            max_size: Some(10 * 1024 * 1024),
            max_files: 5,
            interval: Duration::from_secs(10),
        };
        assert_eq!(config.container_logs, logs);
    }

    #[test]
    fn rotation_is_configured_in_the_stock_words() {
        let text = serde_json::json!({
            "containerLogMaxSize": "-1", "containerLogMaxFiles": 2, "node_name": "n",
        });
        let raw: RawConfig = serde_json::from_value(text).unwrap();
        let logs = Config::resolve(raw).unwrap().container_logs;
        assert_eq!((logs.max_size, logs.max_files), (None, 2));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let refuse = |raw| Config::resolve(raw).unwrap_err().to_string();
        let base = || RawConfig {
            node_name: Some("n1".into()),
            ..RawConfig::default()
        };
        assert!(
            refuse(RawConfig {
                node_name: Some("Not_Legal".into()),
                ..base()
            })
            .contains("Not_Legal")
        );
        assert!(
            refuse(RawConfig {
                root_dir: Some("here".into()),
                ..base()
            })
            .contains("root_dir")
        );
        assert!(
            refuse(RawConfig {
                tls_cert: Some("/etc/hostname".into()),
                ..base()
            })
            .contains("tls_key")
        );
        assert!(
            refuse(RawConfig {
                reserved_cpu: Some("x".into()),
                ..base()
            })
            .contains("reserved_cpu")
        );
        assert!(
            refuse(RawConfig {
                container_log_max_files: Some(1),
                ..base()
            })
            .contains("`container_log_max_files` must be at least 2, not 1")
        );
    }
}
