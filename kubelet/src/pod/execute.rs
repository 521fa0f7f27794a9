//! Performs what `actions` decided, through CRI, and says what came of it.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::cri::{self as v1};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

use super::actions::{PodActions, Start, backoff_key};
use super::backoff::Backoff;
use super::field::Surroundings;
use super::kill::Killer;
use super::runtime::{PodRuntime, Sandbox};
use super::status::WaitReason;
use super::{cri_config, env, grace_period, hooks, hosts, security, uid};
use crate::chain::chain;
use crate::clock::now_millis;
use crate::config::Config;
use crate::cri::Cri;
use crate::event::{Kind, Recorder};
use crate::image::pull::Images;
use crate::node::capacity::Capacity;
use crate::objects::Objects;
use crate::resources::cgroup::PodCgroups;
use crate::volume::Volumes;

/// Time before a step that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Time before a container that could not be configured is looked at again.
const RETRY_CONTAINER: Duration = Duration::from_secs(10);

/// Everything that actions are performed with; a bundle of cheap handles.
#[derive(Clone, Debug)]
pub struct Executor {
    /// The kubelet's configuration.
    pub config: Arc<Config>,
    /// The runtime.
    pub cri: Cri,
    /// ConfigMaps, Secrets, Services.
    pub objects: Objects,
    /// The pods' volumes.
    pub volumes: Volumes,
    /// Where events are reported.
    pub recorder: Recorder,
    /// The pods' images.
    pub images: Images,
    /// The pods' cgroups.
    pub cgroups: PodCgroups,
    /// What the machine has.
    pub capacity: Capacity,
    /// Stops containers.
    pub killer: Killer,
}

/// What came of one round.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Why containers wait, by name.
    pub waits: HashMap<String, WaitReason>,
    /// When to look again; zero means at once, none means when something happens.
    pub again: Option<Duration>,
}

impl Outcome {
    fn at_most(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |again| again.min(wait)));
    }
}

/// One round of one pod.
struct Round<'a> {
    node: &'a Executor,
    pod: &'a Arc<Pod>,
    runtime: &'a PodRuntime,
    cut: &'a CancellationToken,
}

/// Why one container did not start.
struct NotStarted {
    wait: WaitReason,
    retry: Duration,
}

fn not_started(reason: &str, message: String, retry: Duration) -> NotStarted {
    NotStarted {
        wait: WaitReason {
            reason: reason.to_owned(),
            message,
        },
        retry,
    }
}

impl Executor {
    /// Performs one round of actions. `cut` ends what may be ended early once the pod is
    /// to be stopped: pulls, hooks, waiting for volumes.
    pub async fn perform(
        &self,
        pod: &Arc<Pod>,
        actions: PodActions,
        runtime: &PodRuntime,
        backoff: &mut Backoff,
        cut: &CancellationToken,
    ) -> Outcome {
        let round = Round {
            node: self,
            pod,
            runtime,
            cut,
        };
        round.perform(actions, backoff).await
    }

    /// What fields of the pod may refer to.
    #[must_use]
    pub fn surroundings(&self, ips: &[String]) -> Surroundings {
        Surroundings {
            host_ip: self.config.node_ip.to_string(),
            pod_ips: ips.to_vec(),
            allocatable_cpu_milli: self.capacity.allocatable_cpu_milli,
            allocatable_memory: self.capacity.allocatable_memory,
        }
    }

    fn sandbox_config(&self, pod: &Pod, attempt: u32) -> v1::PodSandboxConfig {
        cri_config::sandbox(pod, attempt, &self.config, self.cgroups.parent_of(pod))
    }
}

impl Round<'_> {
    async fn perform(&self, actions: PodActions, backoff: &mut Backoff) -> Outcome {
        let mut outcome = Outcome::default();
        if actions.stop_all && !self.stop_all().await {
            outcome.at_most(RETRY);
            return outcome;
        }
        let starts = actions.new_sandbox.is_some() || !actions.start.is_empty();
        if starts && let Err(retry) = self.volumes_ready().await {
            outcome.at_most(retry);
            return outcome;
        }
        if let Some(attempt) = actions.new_sandbox {
            outcome.at_most(self.new_sandbox(attempt).await);
            return outcome;
        }
        for kill in &actions.kill {
            self.kill(&kill.id, &kill.message, kill.grace).await;
            outcome.at_most(Duration::ZERO);
        }
        for waiting in actions.waiting {
            outcome.at_most(waiting.left + Duration::from_millis(10));
            self.report_back_off(&waiting.name);
            let wait = WaitReason {
                reason: "CrashLoopBackOff".into(),
                message: waiting.message,
            };
            outcome.waits.insert(waiting.name, wait);
        }
        for start in actions.start {
            if self.cut.is_cancelled() {
                break;
            }
            match self.start(&start, backoff).await {
                Ok(()) => outcome.at_most(Duration::ZERO),
                Err(failure) => {
                    outcome.at_most(failure.retry);
                    outcome.waits.insert(start.name, failure.wait);
                }
            }
        }
        outcome
    }

    fn report_back_off(&self, name: &str) {
        let message = format!(
            "Back-off restarting failed container {name} in pod {}_{}({})",
            super::name(self.pod),
            super::namespace(self.pod),
            uid(self.pod)
        );
        let about = (self.pod.as_ref(), name);
        self.node
            .recorder
            .container(about, Kind::Warning, "BackOff", message);
    }

    async fn stop_all(&self) -> bool {
        self.node.recorder.pod(
            self.pod,
            Kind::Normal,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.",
        );
        let grace = Duration::from_secs(u64::try_from(grace_period(self.pod)).unwrap_or_default());
        let stopped = self.node.killer.pod(self.pod, self.runtime, grace).await;
        if let Err(error) = &stopped {
            let message = format!("error killing pod: {}", chain(error));
            let recorder = &self.node.recorder;
            recorder.pod(self.pod, Kind::Warning, "FailedKillPod", message);
        }
        stopped.is_ok()
    }

    async fn volumes_ready(&self) -> Result<(), Duration> {
        let ready = tokio::select! {
            // Cancel-safe: making a volume ready again is idempotent.
            () = self.cut.cancelled() => return Err(Duration::ZERO),
            ready = self.node.volumes.wait_ready(self.pod) => ready,
        };
        ready.map_err(|error| {
            let message = chain(&error);
            let recorder = &self.node.recorder;
            recorder.pod(self.pod, Kind::Warning, "FailedMount", message);
            RETRY
        })
    }

    async fn new_sandbox(&self, attempt: u32) -> Duration {
        let failed = |reason: &'static str, message: String| {
            let recorder = &self.node.recorder;
            recorder.pod(self.pod, Kind::Warning, reason, message);
            RETRY
        };
        if let Err(error) = self.node.cgroups.ensure(self.pod) {
            let message = format!("failed to create the pod's cgroup: {}", chain(&error));
            return failed("FailedCreatePodContainer", message);
        }
        let config = self.node.sandbox_config(self.pod, attempt);
        if let Err(error) = std::fs::create_dir_all(&config.log_directory) {
            let message = format!("cannot make `{}`: {error}", config.log_directory);
            return failed("FailedCreatePodSandBox", message);
        }
        match self.node.cri.run_pod_sandbox(config, "").await {
            Ok(_) => Duration::ZERO,
            Err(error) => failed(
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {}", chain(&error)),
            ),
        }
    }

    async fn kill(&self, id: &str, message: &str, grace: Option<i64>) {
        let Some(record) = self.runtime.containers.iter().find(|c| c.id == id) else {
            return;
        };
        let grace = grace.unwrap_or_else(|| grace_period(self.pod));
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
        let ip = self.runtime.ips().first().cloned().unwrap_or_default();
        let killer = &self.node.killer;
        let stopped = killer
            .container(self.pod, record, &ip, Some(message), grace)
            .await;
        if let Err(error) = stopped {
            tracing::warn!(
                container = id,
                error = chain(&error),
                "cannot stop a container"
            );
        }
    }

    async fn start(&self, start: &Start, backoff: &mut Backoff) -> Result<(), NotStarted> {
        let (Some(sandbox), Some(spec)) = (
            self.runtime.ready_sandbox(),
            super::container(self.pod, &start.name),
        ) else {
            return Err(not_started("ContainerCreating", String::new(), RETRY));
        };
        let sandbox_config = self.node.sandbox_config(self.pod, sandbox.attempt);
        self.node
            .images
            .ensure(self.pod, spec, sandbox_config.clone(), self.cut)
            .await
            .map_err(|unavailable| NotStarted {
                wait: unavailable.wait,
                retry: unavailable.retry,
            })?;
        let config = self.configure(spec, start.attempt, sandbox).await?;
        if let Some(ended) = start.ended {
            backoff.advance(&backoff_key(self.pod, spec), ended, now_millis());
        }
        let id = self
            .node
            .cri
            .create_container(&sandbox.id, config, sandbox_config)
            .await
            .map_err(|error| self.report(spec, "CreateContainerError", chain(&error)))?;
        self.event(
            spec,
            Kind::Normal,
            "Created",
            format!("Created container: {}", spec.name),
        );
        if let Err(error) = self.node.cri.start_container(&id).await {
            return Err(self.report(spec, "RunContainerError", chain(&error)));
        }
        self.event(
            spec,
            Kind::Normal,
            "Started",
            format!("Started container {}", spec.name),
        );
        self.post_start(spec, &id, sandbox).await
    }

    async fn configure(
        &self,
        spec: &Container,
        attempt: u32,
        sandbox: &Sandbox,
    ) -> Result<v1::ContainerConfig, NotStarted> {
        let wrong = |message: String| self.report(spec, "CreateContainerConfigError", message);
        let image = spec.image.as_deref().unwrap_or_default();
        let found = self.node.cri.image_status(image).await;
        let found = found.map_err(|error| wrong(chain(&error)))?;
        security::verify_non_root(self.pod, spec, found.as_ref())
            .map_err(|error| wrong(error.to_string()))?;
        let around = self.node.surroundings(&sandbox.ips);
        let sources = env::fetch(self.pod, spec, &self.node.objects).await;
        let sources = sources.map_err(|error| wrong(chain(&error)))?;
        let envs = env::resolve(self.pod, spec, &sources, &around)
            .map_err(|error| wrong(chain(&error)))?;
        let mut mounts = self
            .node
            .volumes
            .mounts_for(self.pod, spec, &envs)
            .await
            .map_err(|error| wrong(chain(&error)))?;
        let taken =
            |mounts: &[v1::Mount], path: &str| mounts.iter().any(|m| m.container_path == path);
        if !taken(&mounts, "/etc/hosts") {
            let path = hosts::ensure(self.pod, &sandbox.ips, &self.node.config)
                .map_err(|error| wrong(chain(&error)))?;
            mounts.push(bind("/etc/hosts", &path));
        }
        let message_path = cri_config::message_path(spec);
        if !taken(&mounts, message_path) {
            let path = self
                .message_file(spec)
                .map_err(|error| wrong(format!("cannot make the termination message: {error}")))?;
            mounts.push(bind(message_path, &path));
        }
        let logs = cri_config::log_dir(&self.node.config.pod_logs_dir, self.pod).join(&spec.name);
        std::fs::create_dir_all(&logs)
            .map_err(|error| wrong(format!("cannot make `{}`: {error}", logs.display())))?;
        let parts = cri_config::Parts {
            attempt,
            envs,
            mounts,
            memory_capacity: self.node.capacity.memory,
            enforced: self.node.cgroups.missing().is_empty(),
        };
        Ok(cri_config::container(self.pod, spec, parts))
    }

    /// A fresh file for the termination message; whatever user the container runs as may
    /// write it.
    fn message_file(&self, spec: &Container) -> std::io::Result<std::path::PathBuf> {
        let dir = self.node.config.pod_dir(uid(self.pod));
        let dir = dir.join("containers").join(&spec.name);
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{:08x}", rand::random::<u32>()));
        std::fs::File::create(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    async fn post_start(
        &self,
        spec: &Container,
        id: &str,
        sandbox: &Sandbox,
    ) -> Result<(), NotStarted> {
        let hook = spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let ip = sandbox.ips.first().map(String::as_str).unwrap_or_default();
        let ran = tokio::select! {
            // Cancel-safe: the container is stopped next, and the hook with it.
            () = self.cut.cancelled() => return Ok(()),
            ran = hooks::run(&self.node.cri, hook, spec, (id, ip), None) => ran,
        };
        let Err(error) = ran else { return Ok(()) };
        let message = format!("PostStartHook failed: {}", chain(&error));
        self.event(spec, Kind::Warning, "FailedPostStartHook", message);
        self.event(spec, Kind::Normal, "Killing", "FailedPostStartHook".into());
        let grace = Duration::from_secs(u64::try_from(grace_period(self.pod)).unwrap_or_default());
        if let Err(error) = self.node.cri.stop_container(id, grace).await {
            tracing::warn!(
                container = id,
                error = chain(&error),
                "cannot stop a container"
            );
        }
        Err(not_started(
            "PostStartHookError",
            chain(&error),
            Duration::ZERO,
        ))
    }

    fn event(&self, spec: &Container, kind: Kind, reason: &'static str, message: String) {
        let about = (self.pod.as_ref(), spec.name.as_str());
        self.node.recorder.container(about, kind, reason, message);
    }

    /// The `Failed` event of a container that could not be made or started.
    fn report(&self, spec: &Container, reason: &str, message: String) -> NotStarted {
        self.event(spec, Kind::Warning, "Failed", format!("Error: {message}"));
        not_started(reason, message, RETRY_CONTAINER)
    }
}

fn bind(container_path: &str, host_path: &Path) -> v1::Mount {
    v1::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}
