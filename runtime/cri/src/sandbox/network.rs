//! The pod network: which configuration is in force, and what a sandbox asks of it.

use std::path::PathBuf;
use std::sync::Arc;

use berth_cni::config::ConfigError;
use berth_cni::{Attachment, Builtins, Chain, CniError, NetConfList};
use berth_proto::cri;
use serde_json::{Map, Value, json};

use crate::config::Cni;
use crate::record::{self, RecordError};
use crate::sandbox::model::{Attached, SandboxRecord};

/// The interface of a pod.
const POD_INTERFACE: &str = "eth0";
/// The file a default network is written to.
const DEFAULT_NETWORK_FILE: &str = "10-berth.conflist";

/// Why the network does not do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Nothing is configured.
    #[error("no network is configured in `{0}`")]
    NotConfigured(PathBuf),
    /// What is configured cannot be used.
    #[error("the network configuration cannot be used")]
    Config(#[source] ConfigError),
    /// The plugins cannot serve now.
    #[error("the network `{network}` is not available")]
    NotAvailable {
        /// Its name.
        network: String,
        /// What a plugin said.
        #[source]
        source: CniError,
    },
    /// ADD failed; what it did is undone.
    #[error("cannot attach to the network `{network}`")]
    Attach {
        /// Its name.
        network: String,
        /// What a plugin said.
        #[source]
        source: CniError,
    },
    /// DEL failed.
    #[error("cannot detach from the network `{network}`")]
    Detach {
        /// Its name.
        network: String,
        /// What a plugin said.
        #[source]
        source: CniError,
    },
    /// The default network cannot be written.
    #[error("cannot write the default network")]
    Default(#[source] RecordError),
    /// What the plugins gave cannot be forgotten.
    #[error("cannot forget the results of the loopback")]
    Results(#[source] RecordError),
    /// The task that ran the plugins was ended with the server.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// The pod network of this node; a clone is another handle.
#[derive(Clone)]
pub struct Network {
    cni: Arc<Cni>,
}

impl Network {
    /// The network configured by `cni`; a default one is written where there is none.
    pub fn new(cni: Cni) -> Result<Self, NetworkError> {
        if let Some(subnet) = &cni.default_subnet
            && berth_cni::config::load_dir(&cni.conf_dir)
                .map_err(NetworkError::Config)?
                .is_none()
        {
            let (file, text) = default_network(&cni, subnet);
            record::make_dir(&cni.conf_dir)
                .and_then(|()| record::write(&file, text.as_bytes()))
                .map_err(NetworkError::Default)?;
        }
        record::make_dir(&cni.cache_dir).map_err(NetworkError::Default)?;
        Ok(Network { cni: Arc::new(cni) })
    }

    /// Removes the default network's file, unless somebody has changed it. For a node
    /// without pods.
    pub fn remove_default(&self) -> std::io::Result<()> {
        let Some(subnet) = &self.cni.default_subnet else {
            return Ok(());
        };
        let (file, text) = default_network(&self.cni, subnet);
        match std::fs::read_to_string(&file) {
            Ok(held) if held == text => std::fs::remove_file(&file),
            _ => Ok(()),
        }
    }

    /// The configuration in force, read anew: it may change at any time.
    pub fn current(&self) -> Result<NetConfList, NetworkError> {
        let found =
            berth_cni::config::load_dir(&self.cni.conf_dir).map_err(NetworkError::Config)?;
        found.ok_or_else(|| NetworkError::NotConfigured(self.cni.conf_dir.clone()))
    }

    /// Whether an ADD could succeed now.
    pub async fn status(&self) -> Result<(), NetworkError> {
        let network = self.clone();
        blocking(move || {
            let conf = network.current()?;
            let name = conf.name.clone();
            let status = network.chain(conf).status();
            status.map_err(|source| NetworkError::NotAvailable {
                network: name,
                source,
            })
        })
        .await
    }

    /// What ADD will be called with for `record`: stored before it is called.
    pub fn plan(&self, record: &SandboxRecord) -> Result<Attached, NetworkError> {
        let attachment = Attachment {
            container_id: record.id.to_string(),
            netns: Some(record.namespace_path("net")),
            ifname: POD_INTERFACE.to_owned(),
            args: arguments(record),
            capabilities: capabilities(&record.config),
        };
        Ok(Attached {
            network: self.current()?,
            attachment,
            addresses: Vec::new(),
        })
    }

    /// Brings the loopback up and attaches to the network; gives the pod's addresses.
    pub async fn attach(&self, plan: &Attached) -> Result<Attached, NetworkError> {
        let (network, mut attached) = (self.clone(), plan.clone());
        blocking(move || {
            network.loopback(&attached.attachment)?;
            let name = attached.network.name.clone();
            let result = network
                .chain(attached.network.clone())
                .add(&attached.attachment);
            let result = result.map_err(|source| NetworkError::Attach {
                network: name,
                source,
            })?;
            attached.addresses = result.addresses();
            Ok(attached)
        })
        .await
    }

    /// Whether DEL wants the pod's namespace. Our own plugins do not: dropping a namespace
    /// takes its links along and returns at once, deleting a link waits for the kernel.
    pub fn needs_namespace(&self, attached: &Attached) -> bool {
        !self.chain(attached.network.clone()).is_all_builtin()
    }

    /// Detaches; `netns_lives` is false once the pod's namespaces are gone.
    pub async fn detach(&self, attached: &Attached, netns_lives: bool) -> Result<(), NetworkError> {
        let (network, mut attached) = (self.clone(), attached.clone());
        blocking(move || {
            if !netns_lives {
                attached.attachment.netns = None;
            }
            let name = attached.network.name.clone();
            let done = network.chain(attached.network).del(&attached.attachment);
            done.map_err(|source| NetworkError::Detach {
                network: name,
                source,
            })
        })
        .await
    }

    fn loopback(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "loopback", "plugins": [{ "type": "loopback" }],
        });
        let conf = serde_json::from_value(conf).expect("a literal network configuration");
        let attachment = Attachment {
            ifname: "lo".to_owned(),
            ..attachment.clone()
        };
        // Nothing outlives the namespace: there is no DEL, hence nothing to remember.
        let results = self
            .cni
            .cache_dir
            .join("loopback")
            .join(&attachment.container_id);
        let chain = Chain::new(conf, builtins(), Vec::new(), results.clone());
        let added = chain.add(&attachment);
        added.map(drop).map_err(|source| NetworkError::Attach {
            network: "loopback".to_owned(),
            source,
        })?;
        record::remove_tree(&results).map_err(NetworkError::Results)?;
        Ok(())
    }

    fn chain(&self, conf: NetConfList) -> Chain {
        let results = self.cni.cache_dir.join("results");
        Chain::new(conf, builtins(), self.cni.bin_dirs.clone(), results)
    }
}

/// File and text of the network that is written where none is configured.
fn default_network(cni: &Cni, subnet: &str) -> (PathBuf, String) {
    let text = berth_cni::default_network(subnet, &cni.cache_dir.join("leases"));
    (cni.conf_dir.join(DEFAULT_NETWORK_FILE), text)
}

fn builtins() -> Builtins {
    Builtins::new()
        .with(berth_cni_loopback::Loopback)
        .with(berth_cni_bridge::Bridge)
        .with(berth_cni_host_local::HostLocal)
        .with(berth_cni_portmap::Portmap)
}

/// The arguments plugins of Kubernetes clusters read.
fn arguments(record: &SandboxRecord) -> Vec<(String, String)> {
    let metadata = record.config.metadata.clone().unwrap_or_default();
    let pairs = [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", metadata.namespace),
        ("K8S_POD_NAME", metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", record.id.to_string()),
        ("K8S_POD_UID", metadata.uid),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Well-known capabilities (CNI conventions): host ports, bandwidth left to others.
fn capabilities(config: &cri::PodSandboxConfig) -> Map<String, Value> {
    let mappings: Vec<Value> = config
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port > 0)
        .map(|mapping| {
            let mut value = json!({
                "hostPort": mapping.host_port,
                "containerPort": mapping.container_port,
                "protocol": mapping.protocol().as_str_name().to_ascii_lowercase(),
            });
            if !mapping.host_ip.is_empty() {
                value["hostIP"] = json!(mapping.host_ip);
            }
            value
        })
        .collect();
    let mut capabilities = Map::new();
    if !mappings.is_empty() {
        capabilities.insert("portMappings".to_owned(), json!(mappings));
    }
    capabilities
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| NetworkError::ShuttingDown)?
}

/// The pod's `/etc/resolv.conf` (resolv.conf(5)); None asks for the host's.
pub fn resolv_conf(dns: Option<&cri::DnsConfig>) -> Option<String> {
    let dns = dns?;
    if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
        return None;
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Some(text)
}

/// The pod's `/etc/hosts` when the client mounts none: the pod itself and the loopback.
pub fn hosts(hostname: &str, addresses: &[std::net::IpAddr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in addresses {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_holds_what_was_asked() {
        let dns = cri::DnsConfig {
            servers: vec!["10.96.0.10".to_owned()],
            searches: vec!["a.svc".to_owned(), "svc".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        let text = resolv_conf(Some(&dns)).unwrap();
        assert_eq!(
            text,
            "search a.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(Some(&cri::DnsConfig::default())), None);
    }

    #[test]
    fn only_host_ports_are_mapped() {
        let mapping = |host_port, protocol: cri::Protocol| cri::PortMapping {
            host_port,
            container_port: 80,
            protocol: protocol.into(),
            host_ip: String::new(),
        };
        let config = cri::PodSandboxConfig {
            port_mappings: vec![
                mapping(0, cri::Protocol::Tcp),
                mapping(53, cri::Protocol::Udp),
            ],
            ..Default::default()
        };
        let capabilities = capabilities(&config);
        assert_eq!(
            capabilities["portMappings"],
            json!([{ "hostPort": 53, "containerPort": 80, "protocol": "udp" }])
        );
    }
}
