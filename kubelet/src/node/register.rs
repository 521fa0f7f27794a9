//! Makes the Node object, keeps its status current and its lease renewed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::status::NodeContext;
use super::{lease, machine};

/// nodeStatusUpdateFrequency.
const UPDATE: Duration = Duration::from_secs(10);
/// nodeStatusReportFrequency: at least this often, though nothing has changed.
const REPORT: Duration = Duration::from_secs(300);
/// How often a node that is not ready yet looks again.
const UNREADY: Duration = Duration::from_millis(500);

/// Runs until dropped.
pub async fn run(client: kube::Client, context: NodeContext) {
    let mut pause = Duration::from_millis(200);
    let node = loop {
        match register(&client, &context).await {
            Ok(node) => break node,
            Err(error) => tracing::warn!(%error, "cannot register the node"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(7));
    };
    tracing::info!(node = context.config.node_name, "node registered");
    let uid = node.metadata.uid.unwrap_or_default();
    tokio::join!(
        lease::run(client.clone(), context.config.node_name.clone(), uid),
        keep_current(client, context, node.status.unwrap_or_default()),
    );
}

/// The labels every node has, and the configured ones.
fn labels(context: &NodeContext) -> BTreeMap<String, String> {
    let mut labels = context.config.node_labels.clone();
    for prefix in ["", "beta."] {
        labels.insert(format!("{prefix}kubernetes.io/os"), "linux".into());
        labels.insert(
            format!("{prefix}kubernetes.io/arch"),
            machine::architecture().into(),
        );
    }
    labels.insert(
        "kubernetes.io/hostname".into(),
        context.config.node_name.clone(),
    );
    labels
}

async fn register(client: &kube::Client, context: &NodeContext) -> Result<Node, kube::Error> {
    let api = Api::<Node>::all(client.clone());
    let name = &context.config.node_name;
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels(context)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(context.status(&[]).await),
    };
    match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"metadata": {"labels": labels(context)}});
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
        }
        other => other,
    }
}

async fn keep_current(client: kube::Client, context: NodeContext, mut written: NodeStatus) {
    let api = Api::<Node>::all(client);
    // Registration may have dropped the status: the first report is made in any case.
    let mut reported: Option<Instant> = None;
    // One for the whole loop: each clone would find the last change new.
    let mut pressure = context.pressure.clone();
    loop {
        let before = written.conditions.clone().unwrap_or_default();
        let status = context.status(&before).await;
        let due = reported.is_none_or(|at| at.elapsed() >= REPORT);
        if due || differs(&written, &status) {
            let foreign = foreign(&before, &status);
            let mut patch = json!({"status": status});
            if let Some(list) = patch["status"]["conditions"].as_array_mut() {
                list.extend(foreign.into_iter().map(|c| json!(c)));
            }
            let patched = api
                .patch_status(
                    &context.config.node_name,
                    &PatchParams::default(),
                    &Patch::Merge(patch),
                )
                .await;
            match patched {
                Ok(node) => {
                    written = node.status.unwrap_or_default();
                    reported = Some(Instant::now());
                }
                Err(kube::Error::Api(answer)) if answer.code == 404 => {
                    // Somebody deleted the Node: it registers anew.
                    if let Err(error) = register_again(&api, &context).await {
                        tracing::warn!(%error, "cannot register the node again");
                    }
                    reported = None;
                }
                Err(error) => tracing::warn!(%error, "cannot write the node's status"),
            }
        }
        let pause = if is_ready(&status) && reported.is_some() {
            UPDATE
        } else {
            UNREADY
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Pressure is told at once, so that the scheduler stops sending pods here.
            Ok(()) = pressure.changed() => {}
        }
    }
}

async fn register_again(api: &Api<Node>, context: &NodeContext) -> Result<(), kube::Error> {
    let node = Node {
        metadata: ObjectMeta {
            name: Some(context.config.node_name.clone()),
            labels: Some(labels(context)),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    api.create(&PostParams::default(), &node).await.map(drop)
}

/// Conditions that others keep on the Node.
fn foreign(before: &[NodeCondition], status: &NodeStatus) -> Vec<NodeCondition> {
    let ours = status.conditions.as_deref().unwrap_or_default();
    before
        .iter()
        .filter(|c| !ours.iter().any(|o| o.type_ == c.type_))
        .cloned()
        .collect()
}

fn is_ready(status: &NodeStatus) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether anything but heartbeats differs.
fn differs(written: &NodeStatus, now: &NodeStatus) -> bool {
    let bare = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    let (written, now) = (bare(written), bare(now));
    let old = written.conditions.as_deref().unwrap_or_default();
    let changed = |c: &NodeCondition| !old.contains(c);
    now.conditions.iter().flatten().any(changed)
        || written.capacity != now.capacity
        || written.allocatable != now.allocatable
        || written.addresses != now.addresses
        || written.images != now.images
        || written.node_info != now.node_info
        || written.daemon_endpoints != now.daemon_endpoints
}
