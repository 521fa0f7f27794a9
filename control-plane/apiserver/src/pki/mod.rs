//! The cluster's certificate authority and everything issued by it.
//!
//! Files under `<data_dir>/pki` have kubeadm's names. The authority and the service-account
//! key are made once and kept; leaf certificates are issued anew at every start, so that they
//! never expire on a machine that restarts once a year and always carry the present names.

mod issue;
mod kubeconfig;

use std::{
    fs,
    io::Write,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub use issue::KeyAndCert;
use issue::{Authority, Leaf};

use crate::config::Config;

/// The controllers that get an identity of their own, by the names of the stock
/// controllers' service accounts in `kube-system`.
pub const CONTROLLERS: [&str; 8] = [
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "node-controller",
    "namespace-controller",
    "generic-garbage-collector",
    "service-account-controller",
    "root-ca-cert-publisher",
];

/// Why the PKI cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} `{path}`")]
    File {
        /// `read`, `write` or `make`.
        action: &'static str,
        /// What was touched.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate could not be made or parsed.
    #[error("cannot {action}")]
    Certificate {
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// A key is not usable for signing tokens.
    #[error("cannot use the service-account key: {reason}")]
    TokenKey {
        /// Why.
        reason: String,
    },
}

/// Whom a client certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `kubernetes-admin`, group `system:masters`.
    Admin,
    /// `system:node:<name>`, group `system:nodes`.
    Node(String),
    /// `system:kube-scheduler`.
    Scheduler,
    /// `system:serviceaccount:kube-system:<name>`.
    Controller(String),
    /// `kube-apiserver-kubelet-client`: the API server towards kubelets.
    KubeletClient,
}

impl Identity {
    /// The common name of the certificate: the user's name.
    #[must_use]
    pub fn common_name(&self) -> String {
        match self {
            Self::Admin => "kubernetes-admin".to_owned(),
            Self::Node(name) => format!("system:node:{name}"),
            Self::Scheduler => "system:kube-scheduler".to_owned(),
            Self::Controller(name) => format!("system:serviceaccount:kube-system:{name}"),
            Self::KubeletClient => "kube-apiserver-kubelet-client".to_owned(),
        }
    }

    /// The organization of the certificate: the user's group.
    #[must_use]
    pub fn organization(&self) -> Option<&'static str> {
        match self {
            Self::Admin => Some("system:masters"),
            Self::Node(_) => Some("system:nodes"),
            Self::Scheduler => None,
            Self::Controller(_) => Some("system:serviceaccounts"),
            Self::KubeletClient => Some("kubeadm:cluster-admins"),
        }
    }

    /// The file name of the identity's kubeconfig under `<data_dir>/kubeconfig`.
    #[must_use]
    pub fn kubeconfig_name(&self) -> String {
        match self {
            Self::Admin => "admin.conf".to_owned(),
            Self::Node(name) => format!("node-{name}.conf"),
            Self::Scheduler => "scheduler.conf".to_owned(),
            Self::Controller(name) => format!("controller-{name}.conf"),
            Self::KubeletClient => "kubelet-client.conf".to_owned(),
        }
    }
}

/// The authority and the keys of the server.
pub struct Pki {
    authority: Authority,
    /// The server's own certificate and key.
    pub serving: KeyAndCert,
    /// What the server shows to kubelets.
    pub kubelet_client: KeyAndCert,
    /// PKCS#8 PEM of the ES256 key which signs service-account tokens.
    pub service_account_key: String,
}

/// Reads the PKI under `<data_dir>/pki`, making what is missing, and issues leaf
/// certificates.
pub fn ensure(config: &Config) -> Result<Pki, PkiError> {
    let dir = config.data_dir.join("pki");
    make_private_dir(&dir)?;
    let authority = ensure_authority(&dir)?;
    let service_account_key = ensure_service_account_key(&dir)?;
    let (names, ips) = serving_names(config);
    let serving = authority.issue(&Leaf::serving("kube-apiserver", &names, &ips))?;
    let kubelet_client = authority.issue(&Leaf::client(&Identity::KubeletClient))?;
    write_pair(&dir, "apiserver", &serving)?;
    write_pair(&dir, "apiserver-kubelet-client", &kubelet_client)?;
    Ok(Pki {
        authority,
        serving,
        kubelet_client,
        service_account_key,
    })
}

impl Pki {
    /// The authority's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// Issues a client certificate.
    pub fn issue_client(&self, identity: &Identity) -> Result<KeyAndCert, PkiError> {
        self.authority.issue(&Leaf::client(identity))
    }

    /// Issues a serving certificate, for instance a kubelet's
    /// (`system:node:<name>`, its names, its addresses).
    pub fn issue_serving(
        &self,
        common_name: &str,
        names: &[String],
        ips: &[IpAddr],
    ) -> Result<KeyAndCert, PkiError> {
        self.authority
            .issue(&Leaf::serving(common_name, names, ips))
    }

    /// A kubeconfig with an own client certificate for `identity`, as YAML text.
    /// `server` is a URL such as `https://127.0.0.1:6443`.
    pub fn kubeconfig(&self, identity: &Identity, server: &str) -> Result<String, PkiError> {
        let pair = self.issue_client(identity)?;
        let user = identity.common_name();
        Ok(kubeconfig::render(server, self.ca_pem(), &user, &pair))
    }

    /// Writes the kubeconfigs of admin, scheduler, every controller and every node of the
    /// configuration to `<data_dir>/kubeconfig`, mode 0600; next to a node's kubeconfig the
    /// pair with which its kubelet serves.
    pub fn write_kubeconfigs(&self, config: &Config, server: &str) -> Result<(), PkiError> {
        let dir = config.data_dir.join("kubeconfig");
        make_private_dir(&dir)?;
        let fixed = [Identity::Admin, Identity::Scheduler];
        let controllers = CONTROLLERS.map(|name| Identity::Controller(name.to_owned()));
        let nodes = config.node_names.iter().cloned().map(Identity::Node);
        for identity in fixed.into_iter().chain(controllers).chain(nodes) {
            let text = self.kubeconfig(&identity, server)?;
            write_private(&dir.join(identity.kubeconfig_name()), &text)?;
        }
        for node in &config.node_names {
            let pair = self.issue_serving(
                &format!("system:node:{node}"),
                &[node.clone(), "localhost".into()],
                &[IpAddr::from([127, 0, 0, 1])],
            )?;
            write_private(&dir.join(format!("node-{node}.crt")), &pair.cert_pem)?;
            write_private(&dir.join(format!("node-{node}.key")), &pair.key_pem)?;
        }
        Ok(())
    }
}

fn ensure_authority(dir: &Path) -> Result<Authority, PkiError> {
    let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    if cert.exists() && key.exists() {
        return Authority::load(&read(&cert)?, &read(&key)?);
    }
    let authority = Authority::create("kubernetes")?;
    write_private(&key, &authority.key_pem())?;
    write_private(&cert, authority.pem())?;
    Ok(authority)
}

fn ensure_service_account_key(dir: &Path) -> Result<String, PkiError> {
    let path = dir.join("sa.key");
    if path.exists() {
        return read(&path);
    }
    let (private, public) = issue::generate_key()?;
    write_private(&dir.join("sa.pub"), &public)?;
    write_private(&path, &private)?;
    Ok(private)
}

fn serving_names(config: &Config) -> (Vec<String>, Vec<IpAddr>) {
    let domain = &config.cluster_domain;
    let mut names = vec![
        "localhost".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{domain}"),
    ];
    names.extend(config.node_names.iter().cloned());
    let mut ips = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        config.advertise_address,
        config.kubernetes_service_ip().into(),
    ];
    if !config.listen.ip().is_unspecified() {
        ips.push(config.listen.ip());
    }
    ips.sort_unstable();
    ips.dedup();
    (names, ips)
}

fn write_pair(dir: &Path, name: &str, pair: &KeyAndCert) -> Result<(), PkiError> {
    write_private(&dir.join(format!("{name}.key")), &pair.key_pem)?;
    write_private(&dir.join(format!("{name}.crt")), &pair.cert_pem)
}

fn make_private_dir(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| PkiError::File {
            action: "make",
            path: path.to_owned(),
            source,
        })
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file as a whole, mode 0600.
fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let next = path.with_extension("next");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|source| PkiError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_kept_and_leaves_are_new() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().to_owned(), IpAddr::from([192, 0, 2, 1]));
        let first = ensure(&config).unwrap();
        let second = ensure(&config).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.service_account_key, second.service_account_key);
        assert_ne!(first.serving.cert_pem, second.serving.cert_pem);
    }
}
