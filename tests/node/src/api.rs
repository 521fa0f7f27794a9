//! An API server of its own for one test, so that the kubelet has pods that are not static.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_apiserver::{Config, Server};
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::until;

/// A server and an admin's client of it; dropping it stops it.
pub struct ApiServer {
    client: Client,
    kubeconfig: PathBuf,
    image: String,
    _tasks: JoinSet<()>,
}

impl ApiServer {
    /// Starts a server with its data in `dir`; pods run `image`.
    ///
    /// # Errors
    /// It does not start, or does not take a service account.
    pub async fn start(dir: &Path, image: String) -> Result<ApiServer> {
        // A second call is harmless: the first provider stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = Config::new(dir.to_owned(), IpAddr::from(Ipv4Addr::LOCALHOST));
        config.listen = (Ipv4Addr::LOCALHOST, 0).into();
        config.node_names = vec!["testnode".to_owned()];
        let server = Server::bind(config).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(std::future::pending()));
        let admin = Kubeconfig::read_from(dir.join("kubeconfig/admin.conf"))?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(admin, &options).await?;
        let api = ApiServer {
            client: Client::try_from(config)?,
            kubeconfig: dir.join("kubeconfig/node-testnode.conf"),
            image,
            _tasks: tasks,
        };
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
        let accounts = Api::<ServiceAccount>::namespaced(api.client.clone(), "default");
        accounts.create(&PostParams::default(), &account).await?;
        Ok(api)
    }

    /// The kubeconfig of the node.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates the pod `name`, bound to the node, with one container `main` that runs
    /// `script`; `extra` is merged into the container, `spec` into the spec.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(
        &self,
        name: &str,
        script: &str,
        extra: &Value,
        spec: &Value,
    ) -> Result<()> {
        let mut container = json!({
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
        });
        crate::merge(&mut container, extra);
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": {
                "nodeName": "testnode", "containers": [container],
                "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            },
        });
        crate::merge(&mut pod["spec"], spec);
        let pod = serde_json::from_value(pod)?;
        self.pods().create(&PostParams::default(), &pod).await?;
        Ok(())
    }

    /// The pod's status.
    ///
    /// # Errors
    /// There is no such pod.
    pub async fn status(&self, name: &str) -> Result<PodStatus> {
        let pod = self.pods().get(name).await?;
        Ok(pod.status.unwrap_or_default())
    }

    /// The pod's UID.
    ///
    /// # Errors
    /// There is no such pod.
    pub async fn uid(&self, name: &str) -> Result<String> {
        self.pods()
            .get(name)
            .await?
            .metadata
            .uid
            .context("a pod has a UID")
    }

    /// Waits until the pod is in `phase`.
    ///
    /// # Errors
    /// It never is; its status is told.
    pub async fn await_phase(&self, name: &str, phase: &str) -> Result<PodStatus> {
        let reached = async || Ok(self.status(name).await?.phase.as_deref() == Some(phase));
        let waited = until("the phase is reached", reached).await;
        let status = self.status(name).await?;
        waited.with_context(|| format!("{name}: {status:?}"))?;
        Ok(status)
    }

    /// Status of a condition of the Node; empty before it is registered.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn node_condition(&self, kind: &str) -> Result<String> {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = nodes.get_opt("testnode").await?;
        let status = node.and_then(|node| node.status);
        let conditions = status.and_then(|s| s.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|c| c.type_ == kind);
        Ok(found.map(|c| c.status).unwrap_or_default())
    }

    /// Deletes the pods and waits until they are gone.
    ///
    /// # Errors
    /// One stays.
    pub async fn delete(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.pods().delete(name, &DeleteParams::default()).await?;
        }
        let mut left = String::new();
        let gone = until("deleted pods go", async || {
            let pods = self.pods().list(&ListParams::default()).await?.items;
            left = format!(
                "{:?}",
                pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
            );
            Ok(pods.is_empty())
        });
        gone.await.context(left)
    }
}
