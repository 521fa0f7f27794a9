//! Content against a real API server, named by two kubeconfigs: an administrator's in
//! `BERTH_TEST_KUBECONFIG` and that of node `n1` in `BERTH_TEST_NODE_KUBECONFIG`.

use std::time::Duration;

use base64::Engine as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::*;

async fn client(variable: &str) -> Option<Client> {
    let path = std::env::var_os(variable)?;
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Some(Client::try_from(config.unwrap()).unwrap())
}

/// Objects of one name in `default`.
struct Fixture {
    admin: Client,
    name: String,
}

impl Fixture {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::default_namespaced(self.admin.clone())
    }

    async fn create<K>(&self, kind: &str, fields: Value) -> K
    where
        K: kube::Resource<Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let mut object = json!({"apiVersion": "v1", "kind": kind,
            "metadata": {"name": self.name, "namespace": "default"}});
        for (key, value) in fields.as_object().unwrap() {
            object[key] = value.clone();
        }
        let object = serde_json::from_value(object).unwrap();
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    async fn pod(&self) -> Pod {
        let name = &self.name;
        let data = json!({"data": {"page": "one"}});
        self.create::<ConfigMap>("ConfigMap", data).await;
        let data = json!({"stringData": {"key": "s3"}});
        self.create::<Secret>("Secret", data).await;
        self.create::<ServiceAccount>("ServiceAccount", json!({}))
            .await;
        let spec = json!({"spec": {"nodeName": "n1", "serviceAccountName": name,
            "automountServiceAccountToken": false,
            "containers": [{"name": "a", "image": "x", "volumeMounts": [
                {"name": "m", "mountPath": "/m"}, {"name": "s", "mountPath": "/s"},
                {"name": "t", "mountPath": "/t"}]}],
            "volumes": [{"name": "m", "configMap": {"name": name}},
                {"name": "s", "secret": {"secretName": name, "defaultMode": 256}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken":
                    {"path": "token", "expirationSeconds": 600, "audience": "me"}}]}}]}});
        self.create("Pod", spec).await
    }

    async fn delete(&self) {
        let now = DeleteParams::default().grace_period(0);
        self.api::<Pod>().delete(&self.name, &now).await.unwrap();
        self.api::<Secret>().delete(&self.name, &now).await.unwrap();
        self.api::<ConfigMap>()
            .delete(&self.name, &now)
            .await
            .unwrap();
        let accounts = self.api::<ServiceAccount>();
        accounts.delete(&self.name, &now).await.unwrap();
    }
}

fn claims(token: &str) -> Value {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD
        .decode(parts[1])
        .unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[tokio::test]
async fn root_content_follows_the_api_server() {
    let clients = (
        client("BERTH_TEST_KUBECONFIG").await,
        client("BERTH_TEST_NODE_KUBECONFIG").await,
    );
    let (Some(admin), Some(node)) = clients else {
        println!("skipped: BERTH_TEST_KUBECONFIG and BERTH_TEST_NODE_KUBECONFIG are not set");
        return;
    };
    if !is_root() {
        return;
    }
    let name = format!("volumes-{:08x}", rand::random::<u32>());
    let fixture = Fixture { admin, name };
    let pod = fixture.pod().await;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_path_buf();
    let volumes = Volumes::new(path, Objects::new(Some(node)), Surroundings::default());
    volumes.wait_ready(&pod).await.unwrap();
    let paths = host_paths(&volumes, &pod).await.unwrap();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(paths[0].join("page")), "one");
    assert_eq!(read(paths[1].join("key")), "s3");
    assert_eq!(mode(&paths[1].join("key")), 0o400);
    let token = read(paths[2].join("token"));
    let claims = claims(&token);
    let bound = claims["kubernetes.io"]["pod"]["uid"].as_str();
    assert_eq!(bound, pod.metadata.uid.as_deref(), "{claims}");
    assert_eq!(claims["aud"], json!(["me"]));
    let patch = Patch::Merge(json!({"data": {"page": "two"}}));
    let maps = fixture.api::<ConfigMap>();
    let params = PatchParams::default();
    maps.patch(&fixture.name, &params, &patch).await.unwrap();
    // Longer than an object read once is taken as current.
    tokio::time::sleep(Duration::from_secs(6)).await;
    volumes.wait_ready(&pod).await.unwrap();
    assert_eq!(read(paths[0].join("page")), "two");
    assert_eq!(read(paths[2].join("token")), token);
    volumes.teardown(&PodUid::of(&pod).unwrap()).await.unwrap();
    fixture.delete().await;
}
