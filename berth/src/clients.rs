//! Kubernetes clients from kubeconfig files.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client with the identity of a kubeconfig.
pub async fn from_kubeconfig(path: &Path) -> anyhow::Result<Client> {
    let named = || format!("cannot use the kubeconfig `{}`", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(named)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(named)?;
    Client::try_from(config).with_context(named)
}

/// Names the cryptography that every TLS connection of the process uses.
pub fn install_crypto() {
    // A second call is harmless: the first provider stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
