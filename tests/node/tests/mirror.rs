//! The object that stands for a static pod in the API.

use berth_kubelet::Config;
use berth_test_node::api::ApiServer;
use berth_test_node::{runs, test_kubelet, until};
use serde_json::Value;

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-node");

#[test]
fn root_a_mirror_comes_and_goes_with_its_static_pod() {
    test_kubelet("kmir", 65, SERVER, async |mut kubelet| {
        let api =
            ApiServer::start(&kubelet.node.dir().join("server"), kubelet.node.image()).await?;
        let kubeconfig = api.kubeconfig();
        let tune = move |config: &mut Config| config.kubeconfig = Some(kubeconfig.clone());
        kubelet.restart_with(tune).await?;
        let ready = async || Ok(api.node_condition("Ready").await? == "True");
        until("the node is Ready", ready).await?;
        kubelet.put("static", "sleep 1000", &Value::Null, &Value::Null)?;
        kubelet.await_main("static", runs(0)).await?;
        let mirrored = async || Ok(api.status("static-testnode").await.is_ok());
        until("it has a mirror", mirrored).await?;
        kubelet.remove("static")?;
        kubelet.await_gone("static").await?;
        api.delete(&[]).await?;
        kubelet.finish().await
    });
}
