//! The configuration as typed: no I/O, every field optional, unknown fields refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The `[kubelet]` table of the configuration file, or the flags of `berth kubelet`.
///
/// Durations are whole seconds, paths are absolute. What is left out gets the value that
/// stands at the field.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Name of the Node object; the host name in lower case.
    pub node_name: Option<String>,
    /// Address reported as InternalIP; the source address of the default route.
    pub node_ip: Option<IpAddr>,
    /// CRI socket; `/run/berth/cri.sock`.
    pub cri_socket: Option<PathBuf>,
    /// Pods' volumes and the kubelet's own files; `/var/lib/berth/kubelet`.
    pub root_dir: Option<PathBuf>,
    /// Container logs; `/var/log/pods`.
    pub pod_logs_dir: Option<PathBuf>,
    /// How to reach the API server; without it only static pods run.
    pub kubeconfig: Option<PathBuf>,
    /// Directory of static pod manifests; none.
    pub static_pod_dir: Option<PathBuf>,
    /// Name servers of `ClusterFirst` pods; none (such pods then use the host's).
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster; `cluster.local`.
    pub cluster_domain: Option<String>,
    /// resolv.conf handed to `Default` pods; `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// Path below the cgroup2 mount in which `kubepods` is made; the kubelet's own cgroup.
    pub cgroup_root: Option<PathBuf>,
    /// Start although cgroup v2 has no controllers here, without limits; false.
    pub allow_degraded_cgroups: bool,
    /// Serving certificate (PEM); with `tls_key` instead of a self-signed one.
    pub tls_cert: Option<PathBuf>,
    /// Key of the serving certificate (PEM).
    pub tls_key: Option<PathBuf>,
    /// CA that signs the clients of the HTTPS endpoints; without it nobody is let in.
    pub client_ca: Option<PathBuf>,
    /// HTTPS port; 10250. 0 turns the server off.
    pub port: Option<u16>,
    /// Health port on 127.0.0.1; 10248. 0 turns it off.
    pub healthz_port: Option<u16>,
    /// Most pods the node takes; 110.
    pub max_pods: Option<u32>,
    /// Labels put on the Node at registration, beyond the well-known ones.
    pub node_labels: BTreeMap<String, String>,
    /// CPU kept from pods, a quantity; none.
    pub reserved_cpu: Option<String>,
    /// Memory kept from pods, a quantity; none.
    pub reserved_memory: Option<String>,
    /// Size of a container log from which on it is rotated, a quantity; `10Mi`. A negative
    /// one turns rotation off.
    #[serde(alias = "containerLogMaxSize")]
    pub container_log_max_size: Option<String>,
    /// Most files of one container log, the one being written among them, at least 2; 5.
    #[serde(alias = "containerLogMaxFiles")]
    pub container_log_max_files: Option<u32>,
    /// Time between two looks at the container logs; 10, at least 3.
    #[serde(alias = "containerLogMonitorInterval")]
    pub container_log_monitor_interval: Option<u64>,
    /// Least amounts that must be left before pods are evicted, by signal: a quantity or a
    /// percentage; the stock kubelet's. What is given replaces all of them.
    #[serde(alias = "evictionHard")]
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// What is given in `eviction_hard` replaces its own signals' defaults only; false.
    #[serde(alias = "mergeDefaultEvictionSettings")]
    pub merge_default_eviction_settings: bool,
    /// How long a pressure condition outlives its signal; 300.
    #[serde(alias = "evictionPressureTransitionPeriod")]
    pub eviction_pressure_transition_period: Option<u64>,
}
