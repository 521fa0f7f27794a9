//! Reads, reclaims, evicts and reports.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_proto::cri::{self as v1};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};

use super::decide::{Candidate, Held, Passed, passed, victim};
use super::message::message;
use super::signals::{Reading, filesystem, memory, pids, used_below};
use super::threshold::Signal;
use crate::chain::chain;
use crate::config::Config;
use crate::cri::Cri;
use crate::event::{Kind, Recorder};
use crate::image::gc::{Collected, ImageGc};
use crate::node::Pressure;
use crate::pod::admit::Rejection;
use crate::pod::runtime::{LABEL_CONTAINER_NAME, LABEL_POD_UID};
use crate::pod::store::{Entry, PodStore};
use crate::pod::{PodUid, containers, is_critical};
use crate::resources::cgroup::PodCgroups;
use crate::resources::qos::pod_request;
use crate::sync_loop::Evict;

/// Time between two rounds of image collection without pressure (the stock kubelet's).
const COLLECT: Duration = Duration::from_secs(5 * 60);
/// Grace of a hard eviction: the stock kubelet's least.
const GRACE: Duration = Duration::from_secs(1);

/// How long an evicted pod may take to give back what it held, before one more goes (the
/// stock kubelet's podCleanupTimeout).
const CLEAN_UP: Duration = Duration::from_secs(30);
/// Time between two looks at that.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Everything eviction works with.
#[derive(Debug)]
pub struct Eviction {
    /// The kubelet's configuration.
    pub config: Arc<Config>,
    /// The runtime.
    pub cri: Cri,
    /// Where pods' processes are counted.
    pub cgroups: PodCgroups,
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
    let settings = eviction.config.eviction.clone();
    let mut held = Held::new(settings.transition);
    let mut images = ImageGc::new(eviction.cri.clone());
    let mut collected = Instant::now();
    loop {
        tokio::time::sleep(settings.interval).await;
        if collected.elapsed() >= COLLECT {
            collected = Instant::now();
            eviction.collect(&mut images, false).await;
        } else {
            images.look().await;
        }
        let Some(reading) = eviction.read().await else {
            continue;
        };
        let mut short = passed(&reading, &settings.hard);
        if short.iter().any(|p| p.signal.is_disk()) {
            eviction.collect(&mut images, true).await;
            if let Some(reading) = eviction.read().await {
                short = passed(&reading, &settings.hard);
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
                pids: pids()?,
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

    /// Has one pod stopped, the pods that are leaving anyway not counted, and waits until it
    /// has given back what it held: until then the node would seem as short as before.
    async fn evict(&self, short: &Passed) {
        let attempt = format!("Attempting to reclaim {}", short.signal.resource());
        self.recorder
            .node(Kind::Warning, "EvictionThresholdMet", attempt);
        let entries: Vec<Entry> = self.store.all().into_iter().filter(stays).collect();
        let usage = self.usage(short.signal, &entries).await;
        let candidates: Vec<Candidate> = entries
            .iter()
            .filter_map(|entry| candidate(&entry.pod, short.signal, &usage))
            .collect();
        let Some(chosen) = victim(&candidates) else {
            let resource = short.signal.resource();
            tracing::warn!(
                resource,
                "the node runs short, and there is no pod to evict"
            );
            return;
        };
        let found = entries
            .iter()
            .find(|e| PodUid::of(&e.pod).as_ref() == Some(&chosen.uid));
        let Some(entry) = found else { return };
        let used = usage.get(chosen.uid.as_str());
        let containers = used.map(|used| used.containers.as_slice());
        let message = message(short, &entry.pod, containers.unwrap_or_default());
        self.recorder
            .pod(&entry.pod, Kind::Warning, "Evicted", message.clone());
        // The loop lives as long as the kubelet does.
        let _ = self.evictions.send(Evict {
            pod: chosen.uid.clone(),
            why: Rejection {
                reason: "Evicted".into(),
                message,
            },
            grace: GRACE,
        });
        self.await_clean_up(&entry.pod).await;
    }

    /// The pod's cgroup goes last, after its containers and volumes.
    async fn await_clean_up(&self, pod: &Pod) {
        let cgroup = self.cgroups.pod_dir(pod);
        let start = Instant::now();
        while cgroup.exists() && start.elapsed() < CLEAN_UP {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
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

    async fn usage(&self, signal: Signal, entries: &[Entry]) -> HashMap<String, Used> {
        match signal {
            Signal::MemoryAvailable => self.memory_usage().await,
            Signal::PidAvailable => self.process_usage(entries),
            _ => self.disk_usage(entries).await,
        }
    }

    async fn memory_usage(&self) -> HashMap<String, Used> {
        let working_set = |s: &v1::ContainerStats| {
            let bytes = s.memory.as_ref()?.working_set_bytes.as_ref();
            bytes.map(|bytes| bytes.value)
        };
        by_pod(&self.stats().await, working_set)
    }

    fn process_usage(&self, entries: &[Entry]) -> HashMap<String, Used> {
        let count = |entry: &Entry| {
            let beside = self.cgroups.processes(&entry.pod);
            let used = Used {
                beside,
                ..Used::default()
            };
            Some((PodUid::of(&entry.pod)?.as_str().to_owned(), used))
        };
        entries.iter().filter_map(count).collect()
    }

    /// Writable layers, volumes and logs.
    async fn disk_usage(&self, entries: &[Entry]) -> HashMap<String, Used> {
        let layer = |s: &v1::ContainerStats| {
            let bytes = s.writable_layer.as_ref()?.used_bytes.as_ref();
            bytes.map(|bytes| bytes.value)
        };
        let mut usage = by_pod(&self.stats().await, layer);
        for entry in entries {
            let Some(uid) = PodUid::of(&entry.pod) else {
                continue;
            };
            let own = self.config.pod_dir(uid.as_str());
            let logs = crate::pod::cri_config::log_dir(&self.config.pod_logs_dir, &entry.pod);
            let names: Vec<String> = containers(&entry.pod)
                .iter()
                .map(|c| c.name.clone())
                .collect();
            let sum = move || {
                let log = |name: String| (used_below(&logs.join(&name)), name);
                let of_containers: Vec<_> = names.into_iter().map(log).collect();
                (used_below(&own), of_containers)
            };
            let below = tokio::task::spawn_blocking(sum).await.unwrap_or_default();
            let used = usage.entry(uid.as_str().to_owned()).or_default();
            used.beside += below.0;
            for (bytes, name) in below.1 {
                used.add(&name, bytes);
            }
        }
        usage
    }
}

/// What a pod uses of one resource.
#[derive(Debug, Default)]
struct Used {
    /// By its containers.
    containers: Vec<(String, u64)>,
    /// By the pod and none of its containers: volumes.
    beside: u64,
}

impl Used {
    fn add(&mut self, container: &str, amount: u64) {
        match self
            .containers
            .iter_mut()
            .find(|(name, _)| name == container)
        {
            Some((_, used)) => *used += amount,
            None => self.containers.push((container.to_owned(), amount)),
        }
    }

    fn total(&self) -> u64 {
        self.beside + self.containers.iter().map(|(_, used)| used).sum::<u64>()
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
) -> HashMap<String, Used> {
    let mut usage: HashMap<String, Used> = HashMap::new();
    for stat in stats {
        let label = |key| stat.attributes.as_ref().and_then(|a| a.labels.get(key));
        if let (Some(uid), Some(name)) = (label(LABEL_POD_UID), label(LABEL_CONTAINER_NAME)) {
            let used = usage.entry(uid.clone()).or_default();
            used.add(name, value(stat).unwrap_or_default());
        }
    }
    usage
}

fn stays(entry: &Entry) -> bool {
    let phase = entry.status.as_ref().and_then(|s| s.phase.as_deref());
    let over: HashSet<&str> = HashSet::from(["Failed", "Succeeded"]);
    entry.pod.metadata.deletion_timestamp.is_none() && !phase.is_some_and(|p| over.contains(p))
}

fn candidate(pod: &Pod, signal: Signal, usage: &HashMap<String, Used>) -> Option<Candidate> {
    let uid = PodUid::of(pod)?;
    let request = match signal {
        // In thousandths.
        Signal::MemoryAvailable => pod_request(pod, "memory") / 1000,
        Signal::NodeFsAvailable | Signal::ImageFsAvailable => {
            pod_request(pod, "ephemeral-storage") / 1000
        }
        _ => 0,
    };
    Some(Candidate {
        usage: usage.get(uid.as_str()).map_or(0, Used::total),
        uid,
        priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0),
        exempt: is_critical(pod),
        request: u64::try_from(request).unwrap_or_default(),
    })
}
