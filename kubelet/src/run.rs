//! Puts the kubelet together and runs it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::cri::{Cri, CriError};
use crate::event::{self, Kind};
use crate::eviction::{self, Eviction};
use crate::image::pull::Images;
use crate::node::capacity::Capacity;
use crate::node::{self, NodeContext, Pressure};
use crate::objects::Objects;
use crate::pod::PodUid;
use crate::pod::admit::NodeFit;
use crate::pod::execute::Executor;
use crate::pod::field::Surroundings;
use crate::pod::kill::Killer;
use crate::pod::store::PodStore;
use crate::pod::worker::Shared;
use crate::probe::Probes;
use crate::resources::cgroup::{CgroupError, PodCgroups};
use crate::server::{self, PodView, health};
use crate::source::{Origin, SourceEvent, apiserver, file};
use crate::status_sync::status_sync;
use crate::sync_loop::{Evict, Gate, Inputs, SyncLoop};
use crate::volume::Volumes;
use crate::{log, mirror, orphan, pleg};

/// How long the CRI server may take to answer at start.
const RUNTIME_WAIT: Duration = Duration::from_secs(30);

/// Why the kubelet could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kubeconfig is not one.
    #[error("cannot read the kubeconfig `{}`", path.display())]
    Kubeconfig {
        path: std::path::PathBuf,
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// No client can be made of the kubeconfig.
    #[error("cannot make a client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The CRI server does not answer.
    #[error("the CRI server at `{}` does not answer", socket.display())]
    Runtime {
        socket: std::path::PathBuf,
        #[source]
        source: CriError,
    },
    /// The cgroups of pods cannot be made.
    #[error("cannot make the cgroups of pods")]
    Cgroups(#[source] CgroupError),
    /// The kubelet's directory cannot be made.
    #[error("cannot make `{}`", path.display())]
    RootDir {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A part that runs for as long as the kubelet ended.
    #[error("{0} ended")]
    Ended(&'static str),
}

/// Runs the kubelet until `shutdown`; pods keep running after it.
///
/// # Errors
/// When it cannot start, or a part of it ends.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let kubelet = Kubelet::build(config).await?;
    let mut tasks = JoinSet::new();
    kubelet.spawn(&mut tasks);
    tokio::select! {
        () = shutdown => {
            tracing::info!("the kubelet stops; its pods keep running");
            Ok(())
        }
        Some(ended) = tasks.join_next() => {
            Err(ended.unwrap_or(RunError::Ended("a task of the kubelet")))
        }
    }
}

/// Removes what the kubelet has made on the host for pods: volumes, directories, cgroups.
/// Containers are the CRI server's to remove, before; no kubelet may be running.
///
/// # Errors
/// What cannot be removed; everything is tried.
pub async fn clean_up(config: &Config) -> Result<(), CleanUpError> {
    let around = crate::pod::field::Surroundings::default();
    let volumes = Volumes::new(config.root_dir.clone(), Objects::new(None), around);
    let mut outcome = Ok(());
    let dirs = std::fs::read_dir(config.root_dir.join("pods"));
    for entry in dirs.into_iter().flatten().flatten() {
        let uid = PodUid::from(entry.file_name().to_string_lossy().into_owned());
        if let Err(error) = volumes.teardown(&uid).await {
            outcome = Err(CleanUpError::Volumes(error));
            // What is still mounted must not be deleted through the mount.
            continue;
        }
        if let Err((path, source)) = crate::orphan::remove_files(config, &uid) {
            outcome = Err(CleanUpError::Directory { path, source });
        }
    }
    let cgroups = match PodCgroups::prepare(&config.cgroup, 0) {
        Ok(cgroups) => cgroups.remove_all().await,
        Err(error) => Err(error),
    };
    outcome.and(cgroups.map_err(CleanUpError::Cgroups))
}

/// Why something the kubelet made is left.
#[derive(Debug, thiserror::Error)]
pub enum CleanUpError {
    /// A pod's volumes.
    #[error("cannot tear a pod's volumes down")]
    Volumes(#[source] crate::volume::VolumeError),
    /// A pod's directory.
    #[error("cannot remove `{}`", path.display())]
    Directory {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The pods' cgroups.
    #[error("cannot remove the cgroups of pods")]
    Cgroups(#[source] CgroupError),
}

/// Everything made before anything runs.
struct Kubelet {
    config: Arc<Config>,
    client: Option<kube::Client>,
    cri: Cri,
    capacity: Capacity,
    cgroups: PodCgroups,
    runtime_name: String,
    runtime_version: String,
}

impl Kubelet {
    async fn build(config: Config) -> Result<Kubelet, RunError> {
        let client = match &config.kubeconfig {
            Some(path) => Some(connect(path).await?),
            None => None,
        };
        std::fs::create_dir_all(&config.root_dir).map_err(|source| RunError::RootDir {
            path: config.root_dir.clone(),
            source,
        })?;
        let cri = Cri::new(&config.cri_socket, config.runtime_timeout);
        let version = wait_for_runtime(&cri, &config).await?;
        let capacity = Capacity::read(&config);
        let limit = capacity.memory - config.reserved_memory;
        let cgroups = PodCgroups::prepare(&config.cgroup, limit).map_err(RunError::Cgroups)?;
        Ok(Kubelet {
            config: Arc::new(config),
            client,
            cri,
            capacity,
            cgroups,
            runtime_name: version.runtime_name,
            runtime_version: version.runtime_version,
        })
    }

    /// Spawns every part. Each runs for as long as the kubelet; the end of one is an error.
    fn spawn(self, tasks: &mut JoinSet<RunError>) {
        let (recorder, events) = event::recorder(&self.config.node_name);
        let store = PodStore::default();
        let (status, status_writer) = status_sync(store.clone());
        let objects = Objects::new(self.client.clone());
        let (probe_changes, probes_in) = mpsc::unbounded_channel();
        let (finished, finished_in) = mpsc::unbounded_channel();
        let (sources, sources_in) = mpsc::unbounded_channel();
        let (pleg_events, pleg_in) = mpsc::unbounded_channel();
        let (orphans_found, orphans_in) = mpsc::unbounded_channel();
        let (evictions, evictions_in) = mpsc::unbounded_channel();
        let (pressure, pressure_seen) = watch::channel(Pressure::default());
        let cri = self.cri.clone();
        let executor = self.executor(&recorder, &objects);
        spawn_refresher(tasks, &executor, &store);
        let host_ip = self.config.node_ip.to_string();
        let probes = Probes::new(cri.clone(), recorder.clone(), host_ip, probe_changes);
        let shared = Shared {
            executor: executor.clone(),
            store: store.clone(),
            status,
            probes,
            runtime_name: self.runtime_name.clone(),
            finished,
        };
        let files_read = Arc::new(AtomicBool::new(self.config.static_pod_dir.is_none()));
        let (mirrors, mirror_writer) = mirror::mirrors(self.client.is_some(), files_read.clone());
        let orphans = orphan::Orphans::new(executor, orphans_found);
        let gate = self.gate(&pressure_seen);
        let sync_loop = SyncLoop::new(shared, gate, self.origins(), mirrors, orphans);
        let inputs = Inputs {
            sources: sources_in,
            pleg: pleg_in,
            probes: probes_in,
            evictions: evictions_in,
            finished: finished_in,
            orphans: orphans_in,
        };
        let (client, node) = (self.client.clone(), self.config.node_name.clone());
        spawn(tasks, "the event writer", events.run(client.clone()));
        spawn(
            tasks,
            "the status writer",
            status_writer.run(client.clone()),
        );
        if let Some(client) = client {
            spawn(tasks, "the mirror writer", mirror_writer.run(client, node));
        }
        spawn(tasks, "the PLEG", pleg::run(cri, pleg_events));
        spawn(tasks, "the sync loop", sync_loop.run(inputs));
        self.spawn_sources(tasks, &sources, &files_read);
        self.spawn_logs(tasks, &store);
        let eviction = self.eviction(store, &recorder, pressure, evictions);
        self.spawn_node(tasks, pressure_seen, eviction);
        recorder.node(Kind::Normal, "Starting", "Starting kubelet.");
    }

    fn executor(&self, recorder: &event::Recorder, objects: &Objects) -> Executor {
        let root = self.config.root_dir.clone();
        Executor {
            config: self.config.clone(),
            cri: self.cri.clone(),
            objects: objects.clone(),
            volumes: Volumes::new(root, objects.clone(), self.surroundings()),
            recorder: recorder.clone(),
            images: Images::new(self.cri.clone(), objects.clone(), recorder.clone()),
            cgroups: self.cgroups.clone(),
            capacity: self.capacity,
            killer: Killer {
                cri: self.cri.clone(),
                recorder: recorder.clone(),
            },
        }
    }

    fn eviction(
        &self,
        store: PodStore,
        recorder: &event::Recorder,
        pressure: watch::Sender<Pressure>,
        evictions: mpsc::UnboundedSender<Evict>,
    ) -> Eviction {
        Eviction {
            config: self.config.clone(),
            cri: self.cri.clone(),
            cgroups: self.cgroups.clone(),
            store,
            recorder: recorder.clone(),
            pressure,
            evictions,
        }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            host_ip: self.config.node_ip.to_string(),
            pod_ips: Vec::new(),
            allocatable_cpu_milli: self.capacity.allocatable_cpu_milli,
            allocatable_memory: self.capacity.allocatable_memory,
        }
    }

    fn gate(&self, pressure: &watch::Receiver<Pressure>) -> Gate {
        let mut labels = self.config.node_labels.clone();
        labels.insert(
            "kubernetes.io/hostname".into(),
            self.config.node_name.clone(),
        );
        labels.insert("kubernetes.io/os".into(), "linux".into());
        let node = NodeFit {
            cpu_milli: self.capacity.allocatable_cpu_milli,
            memory: self.capacity.allocatable_memory,
            pods: self.capacity.pods,
            labels,
        };
        Gate {
            node,
            pressure: pressure.clone(),
        }
    }

    fn origins(&self) -> Vec<Origin> {
        let mut origins = Vec::new();
        if self.client.is_some() {
            origins.push(Origin::Api);
        }
        if self.config.static_pod_dir.is_some() {
            origins.push(Origin::File);
        }
        origins
    }

    fn spawn_sources(
        &self,
        tasks: &mut JoinSet<RunError>,
        sources: &mpsc::UnboundedSender<SourceEvent>,
        files_read: &Arc<AtomicBool>,
    ) {
        let node = self.config.node_name.clone();
        if let Some(dir) = self.config.static_pod_dir.clone() {
            let (tap, mut tapped) = mpsc::unbounded_channel();
            let (onward, read) = (sources.clone(), files_read.clone());
            spawn(
                tasks,
                "the static pod source",
                file::run(dir, node.clone(), tap),
            );
            spawn(tasks, "the static pod source", async move {
                while let Some(event) = tapped.recv().await {
                    if onward.send(event).is_err() {
                        return;
                    }
                    read.store(true, Ordering::Relaxed);
                }
            });
        }
        let onward = sources.clone();
        match self.client.clone() {
            Some(client) => spawn(tasks, "the API server source", async move {
                apiserver::run(client, &node, onward).await;
            }),
            // Held open, so that the sync loop does not see its only source end.
            None => spawn(tasks, "the sources", async move { onward.closed().await }),
        }
    }

    fn spawn_server(&self, tasks: &mut JoinSet<RunError>, store: PodStore) {
        let logs = self.config.pod_logs_dir.clone();
        let view = PodView::new(store, self.cri.clone(), logs);
        let config = self.config.clone();
        spawn(tasks, "the HTTPS server", async move {
            if let Err(error) = server::serve(view, config, std::future::pending()).await {
                tracing::error!(error = crate::chain::chain(&error), "no HTTPS server");
            }
        });
    }

    /// The server, for logs among others, and what keeps logs small.
    fn spawn_logs(&self, tasks: &mut JoinSet<RunError>, store: &PodStore) {
        self.spawn_server(tasks, store.clone());
        let rotation = log::run(self.config.clone(), self.cri.clone(), store.clone());
        spawn(tasks, "the rotation of logs", rotation);
    }

    fn spawn_node(
        &self,
        tasks: &mut JoinSet<RunError>,
        seen: watch::Receiver<Pressure>,
        eviction: Eviction,
    ) {
        if let Some(client) = self.client.clone() {
            let context = NodeContext {
                config: self.config.clone(),
                cri: self.cri.clone(),
                capacity: self.capacity,
                unenforced: self.cgroups.missing().to_vec(),
                pressure: seen,
                runtime: format!("{}://{}", self.runtime_name, self.runtime_version),
            };
            spawn(tasks, "the node status", node::run(client, context));
        }
        if let Some(address) = self.config.healthz {
            let cri = self.cri.clone();
            spawn(tasks, "the health endpoint", async move {
                if let Err(error) = health::serve(address, cri).await {
                    tracing::error!(error = crate::chain::chain(&error), "no health endpoint");
                }
            });
        }
        spawn(tasks, "eviction", eviction::run(eviction));
    }
}

fn spawn_refresher(tasks: &mut JoinSet<RunError>, executor: &Executor, store: &PodStore) {
    let current = executor.volumes.clone().keep_current(store.clone());
    spawn(tasks, "the refresher of volumes", current);
}

fn spawn(
    tasks: &mut JoinSet<RunError>,
    name: &'static str,
    part: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        part.await;
        RunError::Ended(name)
    });
}

async fn connect(path: &std::path::Path) -> Result<kube::Client, RunError> {
    let failed = |source| RunError::Kubeconfig {
        path: path.to_path_buf(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(failed)?;
    kube::Client::try_from(config).map_err(|error| RunError::Client(Box::new(error)))
}

/// The CRI server may start at the same time: it is asked until it answers.
async fn wait_for_runtime(
    cri: &Cri,
    config: &Config,
) -> Result<berth_proto::cri::VersionResponse, RunError> {
    let end = tokio::time::Instant::now() + RUNTIME_WAIT;
    loop {
        match cri.version().await {
            Ok(version) => return Ok(version),
            Err(source) if tokio::time::Instant::now() > end => {
                return Err(RunError::Runtime {
                    socket: config.cri_socket.clone(),
                    source,
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
