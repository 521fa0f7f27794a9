//! Reads, reclaims, evicts and reports.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_proto::cri::{self as v1};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};

use super::decide::{Candidate, Held, Passed, passed, victim};
use super::signals::{Reading, filesystem, memory, used_below};
use crate::chain::chain;
use crate::config::Config;
use crate::cri::Cri;
use crate::event::{Kind, Recorder};
use crate::image::gc::{Collected, ImageGc};
use crate::node::Pressure;
use crate::pod::admit::Rejection;
use crate::pod::runtime::LABEL_POD_UID;
use crate::pod::store::{Entry, PodStore};
use crate::pod::{PodUid, is_mirror, is_static};
use crate::resources::qos::pod_request;
use crate::sync_loop::Evict;

/// Time between two looks (the stock kubelet's).
const LOOK: Duration = Duration::from_secs(10);
/// Time between two rounds of image collection without pressure (the stock kubelet's).
const COLLECT: Duration = Duration::from_secs(5 * 60);
/// Grace of a hard eviction: the stock kubelet's least.
const GRACE: Duration = Duration::from_secs(1);
/// Priorities from here on are critical and never evicted (`system-cluster-critical`).
const CRITICAL: i32 = 2_000_000_000;

/// Everything eviction works with.
#[derive(Debug)]
pub struct Eviction {
    /// The kubelet's configuration.
    pub config: Arc<Config>,
    /// The runtime.
    pub cri: Cri,
    /// The pods that might go.
    pub store: PodStore,
    /// Where it is reported.
    pub recorder: Recorder,
    /// The node's conditions.
    pub pressure: watch::Sender<Pressure>,
    /// Who stops pods.
    pub evictions: mpsc::UnboundedSender<Evict>,
}

/// Looks after the node for as long as the kubelet runs.
pub async fn run(eviction: Eviction) {
    let mut held = Held::default();
    let mut images = ImageGc::new(eviction.cri.clone());
    let mut collected = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if collected.elapsed() >= COLLECT {
            collected = Instant::now();
            eviction.collect(&mut images, false).await;
        } else {
            images.look().await;
        }
        let Some(reading) = eviction.read().await else {
            continue;
        };
        let mut short = passed(&reading);
        if short.iter().any(|p| p.signal.is_disk()) {
            eviction.collect(&mut images, true).await;
            if let Some(reading) = eviction.read().await {
                short = passed(&reading);
            }
        }
        let now = held.pressure(&short, Instant::now());
        eviction.pressure.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        if let Some(first) = short.first() {
            eviction.evict(first).await;
        }
    }
}

impl Eviction {
    async fn read(&self) -> Option<Reading> {
        let imagefs = image_fs(&self.cri).await;
        let root = self.config.root_dir.clone();
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<Reading> {
            Ok(Reading {
                memory: memory()?,
                nodefs: filesystem(&root)?,
                imagefs: imagefs.and_then(|path| filesystem(&path).ok()),
            })
        });
        match read.await {
            Ok(Ok(reading)) => Some(reading),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read what is left of the node's resources");
                None
            }
            Err(_) => None,
        }
    }

    async fn collect(&self, images: &mut ImageGc, all: bool) {
        let Some(path) = image_fs(&self.cri).await else {
            return;
        };
        match images.collect(&path, all).await {
            Ok(Collected::Enough) => {}
            Ok(Collected::TooLittle { wanted, freed }) => {
                let message = format!(
                    "Failed to garbage collect required amount of images. Attempted to free \
                     {wanted} bytes, but only found {freed} bytes eligible to free."
                );
                let recorder = &self.recorder;
                recorder.node(Kind::Warning, "FreeDiskSpaceFailed", message);
            }
            Err(error) => {
                let recorder = &self.recorder;
                recorder.node(Kind::Warning, "ImageGCFailed", chain(&error));
            }
        }
    }

    /// Has one pod stopped, the pods that are leaving anyway not counted.
    async fn evict(&self, short: &Passed) {
        let message = format!("Attempting to reclaim {}", short.signal.resource());
        self.recorder
            .node(Kind::Warning, "EvictionThresholdMet", message);
        let entries: Vec<Entry> = self.store.all().into_iter().filter(stays).collect();
        let usage = match short.signal.is_disk() {
            true => self.disk_usage(&entries).await,
            false => self.memory_usage().await,
        };
        let resource = match short.signal.is_disk() {
            true => "ephemeral-storage",
            false => "memory",
        };
        let candidates: Vec<Candidate> = entries
            .iter()
            .filter_map(|entry| candidate(&entry.pod, resource, &usage))
            .collect();
        let Some(chosen) = victim(&candidates) else {
            tracing::warn!(
                resource,
                "the node runs short, and there is no pod to evict"
            );
            return;
        };
        let message = format!(
            "The node was low on resource: {}. Threshold quantity: {}, available: {}. The pod \
             was using {}, request is {}.",
            short.signal.resource(),
            short.threshold,
            short.available,
            chosen.usage,
            chosen.request
        );
        let found = entries
            .iter()
            .find(|e| PodUid::of(&e.pod).as_ref() == Some(&chosen.uid));
        if let Some(entry) = found {
            let recorder = &self.recorder;
            recorder.pod(&entry.pod, Kind::Warning, "Evicted", message.clone());
        }
        // The loop lives as long as the kubelet does.
        let _ = self.evictions.send(Evict {
            pod: chosen.uid.clone(),
            why: Rejection {
                reason: "Evicted".into(),
                message,
            },
            grace: GRACE,
        });
    }

    async fn stats(&self) -> Vec<v1::ContainerStats> {
        match self.cri.list_container_stats().await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "no statistics: pods are ranked without"
                );
                Vec::new()
            }
        }
    }

    async fn memory_usage(&self) -> HashMap<String, u64> {
        let working_set = |s: &v1::ContainerStats| {
            let bytes = s.memory.as_ref()?.working_set_bytes.as_ref();
            bytes.map(|bytes| bytes.value)
        };
        by_pod(&self.stats().await, working_set)
    }

    /// Writable layers, volumes and logs.
    async fn disk_usage(&self, entries: &[Entry]) -> HashMap<String, u64> {
        let layer = |s: &v1::ContainerStats| {
            let bytes = s.writable_layer.as_ref()?.used_bytes.as_ref();
            bytes.map(|bytes| bytes.value)
        };
        let mut usage = by_pod(&self.stats().await, layer);
        for entry in entries {
            let Some(uid) = PodUid::of(&entry.pod) else {
                continue;
            };
            let volumes = self.config.pod_dir(uid.as_str());
            let logs = crate::pod::cri_config::log_dir(&self.config.pod_logs_dir, &entry.pod);
            let sum = move || used_below(&volumes) + used_below(&logs);
            let below = tokio::task::spawn_blocking(sum).await.unwrap_or_default();
            *usage.entry(uid.as_str().to_owned()).or_default() += below;
        }
        usage
    }
}

/// The directory on the file system that holds images.
async fn image_fs(cri: &Cri) -> Option<PathBuf> {
    let info = cri.image_fs_info().await.ok()?;
    let first = info.image_filesystems.into_iter().next()?;
    let path = PathBuf::from(first.fs_id?.mountpoint);
    path.is_absolute().then(|| existing(&path)).flatten()
}

/// The nearest directory that is there.
fn existing(path: &Path) -> Option<PathBuf> {
    let found = path.ancestors().find(|path| path.exists());
    found.map(Path::to_path_buf)
}

fn by_pod(
    stats: &[v1::ContainerStats],
    value: impl Fn(&v1::ContainerStats) -> Option<u64>,
) -> HashMap<String, u64> {
    let mut usage: HashMap<String, u64> = HashMap::new();
    for stat in stats {
        let labels = stat.attributes.as_ref().map(|a| &a.labels);
        if let Some(uid) = labels.and_then(|labels| labels.get(LABEL_POD_UID)) {
            *usage.entry(uid.clone()).or_default() += value(stat).unwrap_or_default();
        }
    }
    usage
}

fn stays(entry: &Entry) -> bool {
    let phase = entry.status.as_ref().and_then(|s| s.phase.as_deref());
    let over: HashSet<&str> = HashSet::from(["Failed", "Succeeded"]);
    entry.pod.metadata.deletion_timestamp.is_none() && !phase.is_some_and(|p| over.contains(p))
}

fn candidate(pod: &Pod, resource: &str, usage: &HashMap<String, u64>) -> Option<Candidate> {
    let uid = PodUid::of(pod)?;
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    Some(Candidate {
        usage: usage.get(uid.as_str()).copied().unwrap_or_default(),
        uid,
        priority,
        exempt: priority >= CRITICAL || is_static(pod) || is_mirror(pod),
        request: u64::try_from(pod_request(pod, resource)).unwrap_or_default(),
    })
}
