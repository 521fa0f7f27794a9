//! What the server is told at start.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// The API server's configuration, fully resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds `pki/`, `kubeconfig/` and `store/`; made with mode 0700.
    pub data_dir: PathBuf,
    /// Where HTTPS is served. Port 0 takes a free one (kubeconfigs then name the real one).
    pub listen: SocketAddr,
    /// The address under which other machines and pods reach this server: endpoint of the
    /// `kubernetes` Service.
    pub advertise_address: IpAddr,
    /// Nodes for which a kubeconfig is written at start; also names of the serving
    /// certificate.
    pub node_names: Vec<String>,
    /// First address of the service range (network address) and its prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// The cluster DNS address inside the service range; never handed out by chance.
    pub cluster_dns: Ipv4Addr,
    /// The cluster's DNS domain, for instance `cluster.local`.
    pub cluster_domain: String,
}

impl Config {
    /// The defaults of `berth up` with data in `data_dir`: port 6443 everywhere, services in
    /// 10.96.0.0/16, DNS at 10.96.0.10.
    #[must_use]
    pub fn new(data_dir: PathBuf, advertise_address: IpAddr) -> Self {
        Self {
            data_dir,
            listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 6443),
            advertise_address,
            node_names: Vec::new(),
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
            cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    /// The address of the `kubernetes` Service: the first one of the service range.
    #[must_use]
    pub fn kubernetes_service_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.0) + 1)
    }
}
