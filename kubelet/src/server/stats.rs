//! `/stats/summary`: CPU and memory by container, from CRI's container stats.

use std::collections::BTreeMap;

use berth_proto::cri::{self as v1};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::reply::{self, Refusal, Reply};
use super::view::PodView;
use crate::pod::runtime::{LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

/// The summary of every pod that has containers.
pub async fn summary(view: &PodView, node: &str) -> Result<Reply, Refusal> {
    let stats = view.cri().list_container_stats().await?;
    reply::json(&json!({"node": {"nodeName": node}, "pods": pods(&stats)}))
}

fn pods(stats: &[v1::ContainerStats]) -> Vec<Value> {
    let mut by_pod: BTreeMap<[&str; 3], Vec<Value>> = BTreeMap::new();
    for stat in stats {
        let Some(attributes) = &stat.attributes else {
            continue;
        };
        let label = |key| attributes.labels.get(key).map(String::as_str).unwrap_or("");
        let pod = [LABEL_POD_NAMESPACE, LABEL_POD_NAME, LABEL_POD_UID].map(label);
        by_pod.entry(pod).or_default().push(container(stat));
    }
    let pod = |([namespace, name, uid], containers): ([&str; 3], Vec<Value>)| {
        let reference = json!({"name": name, "namespace": namespace, "uid": uid});
        json!({"podRef": reference, "containers": containers})
    };
    by_pod.into_iter().map(pod).collect()
}

fn container(stat: &v1::ContainerStats) -> Value {
    let metadata = stat.attributes.as_ref().and_then(|a| a.metadata.as_ref());
    let mut out = json!({"name": metadata.map(|m| m.name.as_str()).unwrap_or_default()});
    if let Some(cpu) = &stat.cpu {
        let number = |v: &Option<v1::UInt64Value>| v.as_ref().map(|v| v.value);
        out["cpu"] = json!({
            "time": time(cpu.timestamp),
            "usageNanoCores": number(&cpu.usage_nano_cores),
            "usageCoreNanoSeconds": number(&cpu.usage_core_nano_seconds),
        });
    }
    if let Some(memory) = &stat.memory {
        let number = |v: &Option<v1::UInt64Value>| v.as_ref().map(|v| v.value);
        out["memory"] = json!({
            "time": time(memory.timestamp),
            "availableBytes": number(&memory.available_bytes),
            "usageBytes": number(&memory.usage_bytes),
            "workingSetBytes": number(&memory.working_set_bytes),
            "rssBytes": number(&memory.rss_bytes),
            "pageFaults": number(&memory.page_faults),
            "majorPageFaults": number(&memory.major_page_faults),
        });
    }
    if let Some(layer) = &stat.writable_layer {
        let number = |v: &Option<v1::UInt64Value>| v.as_ref().map(|v| v.value);
        out["rootfs"] = json!({
            "time": time(layer.timestamp),
            "usedBytes": number(&layer.used_bytes),
            "inodesUsed": number(&layer.inodes_used),
        });
    }
    out
}

fn time(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(nanoseconds.into())
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}
