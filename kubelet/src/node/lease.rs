//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every 10 s for 40 s.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

/// nodeLeaseDurationSeconds.
const DURATION: i32 = 40;
/// A quarter of it.
const RENEW: Duration = Duration::from_secs(10);

/// Renews the lease until dropped.
pub async fn run(client: kube::Client, node: String, node_uid: String) {
    let api = Api::<Lease>::namespaced(client, "kube-node-lease");
    loop {
        let pause = match renew(&api, &node, &node_uid).await {
            Ok(()) => RENEW,
            Err(error) => {
                tracing::warn!(%error, "cannot renew the node's lease");
                Duration::from_secs(2)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(api: &Api<Lease>, node: &str, node_uid: &str) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {
        "holderIdentity": node,
        "leaseDurationSeconds": DURATION,
        "renewTime": now,
    }});
    let patched = api
        .patch(node, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match patched {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some("kube-node-lease".into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.to_owned(),
                uid: node_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(DURATION),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
