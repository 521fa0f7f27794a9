//! One task for each pod UID: observes, decides, acts, and reports the status.
//!
//! Its mailbox holds one value: the newest spec wins, and requests to stop are merged so
//! that they only shorten the grace period.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::actions::{PodActions, World, compute_pod_actions};
use super::backoff::Backoff;
use super::execute::Executor;
use super::lifecycle::{Effect, Observed, Phase, Reason};
use super::runtime::PodRuntime;
use super::status::{Facts, WaitReason, generate};
use super::store::PodStore;
use super::termination::Messages;
use super::{PodUid, cri_config, prune};
use crate::chain::chain;
use crate::clock::now_millis;
use crate::cri::CriError;
use crate::log::LogFiles;
use crate::probe::Probes;
use crate::status_sync::StatusSync;

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The newest form of the pod.
    pub pod: Arc<Pod>,
    /// Stop it, for this reason and within this time.
    pub stop: Option<(Reason, Duration)>,
    /// It is to disappear, not only to end.
    pub unwanted: bool,
    /// Raised when something happened to its containers or probes.
    pub wake: u64,
}

impl Mail {
    /// Merges a request to stop: the first reason stays, the grace only shrinks.
    pub fn stop(&mut self, reason: Reason, grace: Duration) {
        self.stop = Some(match self.stop.take() {
            None => (reason, grace),
            Some((Reason::Deleted, held)) if reason == Reason::Removed => (reason, held.min(grace)),
            Some((held, before)) => (held, before.min(grace)),
        });
    }
}

/// What every worker shares; a bundle of cheap handles.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Performs actions.
    pub executor: Executor,
    /// Where status and runtime state are kept for readers.
    pub store: PodStore,
    /// The only way a status reaches the API server.
    pub status: StatusSync,
    /// The pods' probes.
    pub probes: Probes,
    /// The runtime's name, prefix of container ids.
    pub runtime_name: String,
    /// Told the UID of each worker that has finished.
    pub finished: mpsc::UnboundedSender<PodUid>,
}

/// The state of one pod's task.
struct Worker {
    shared: Shared,
    uid: PodUid,
    mailbox: watch::Receiver<Mail>,
    phase: Phase,
    backoff: Backoff,
    waits: HashMap<String, WaitReason>,
    messages: Messages,
    last_status: Option<Arc<PodStatus>>,
    cleaned: bool,
    removed: bool,
}

/// Runs a pod from its first sync until nothing of it is left.
pub async fn run(shared: Shared, uid: PodUid, mailbox: watch::Receiver<Mail>) {
    let backoff = Backoff::new(shared.executor.config.max_backoff);
    let mut worker = Worker {
        shared,
        uid,
        mailbox,
        phase: Phase::Syncing,
        backoff,
        waits: HashMap::new(),
        messages: Messages::default(),
        last_status: None,
        cleaned: false,
        removed: false,
    };
    worker.live().await;
    // The loop is gone only when the kubelet is going down.
    let _ = worker.shared.finished.send(worker.uid.clone());
}

impl Worker {
    async fn live(&mut self) {
        while self.phase != Phase::Finished {
            let again = match self.step().await {
                Ok(again) => again,
                Err(error) => {
                    tracing::warn!(pod = %self.uid, error = chain(&error), "cannot observe a pod");
                    Some(Duration::from_secs(1))
                }
            };
            if again == Some(Duration::ZERO) {
                continue;
            }
            let pause = again.unwrap_or(self.shared.executor.config.sync_frequency);
            tokio::select! {
                // Cancel-safe: the mailbox keeps its newest value.
                changed = self.mailbox.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Observe, decide, act, once.
    async fn step(&mut self) -> Result<Option<Duration>, CriError> {
        let mail = self.mailbox.borrow_and_update().clone();
        let executor = self.shared.executor.clone();
        let mut runtime = PodRuntime::observe(&executor.cri, &self.uid).await?;
        self.messages.fill(&mut runtime);
        let runtime = Arc::new(runtime);
        self.shared.store.set_runtime(&self.uid, runtime.clone());
        let ending = self.phase != Phase::Syncing;
        let probes = &self.shared.probes;
        probes.follow(&self.uid, &mail.pod, &runtime, ending);
        let seen = self.observed(&mail, &runtime);
        let (phase, effects) = std::mem::replace(&mut self.phase, Phase::Finished).next(&seen);
        self.phase = phase;
        if self.phase == Phase::Finished {
            // At once: no word will come that ends a pause.
            return Ok(Some(Duration::ZERO));
        }
        self.publish(&mail.pod, &runtime);
        let mut again = None;
        for effect in effects {
            again = match effect {
                Effect::Sync => self.sync(&mail.pod, &runtime).await,
                Effect::Kill { grace } => self.kill(&mail.pod, &runtime, grace).await,
                Effect::CleanUp => self.clean_up(&runtime).await,
                Effect::Remove => self.remove(&mail.pod, &runtime).await,
            };
        }
        Ok(again)
    }

    fn observed(&self, mail: &Mail, runtime: &PodRuntime) -> Observed {
        let deadline = deadline_left(&mail.pod, self.last_status.as_deref());
        let mut stop = mail.stop.clone();
        if stop.is_none() && deadline == Some(Duration::ZERO) && self.phase == Phase::Syncing {
            stop = Some((Reason::DeadlineExceeded, grace_of(&mail.pod)));
        }
        let status = self.status(&mail.pod, runtime);
        let done = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        Observed {
            stop,
            completed: (done && !runtime.containers.is_empty()).then(|| grace_of(&mail.pod)),
            running: runtime.running().next().is_some()
                || runtime.sandboxes.iter().any(|s| s.ready),
            cleaned: self.cleaned,
            unwanted: mail.unwanted,
            removed: self.removed,
        }
    }

    fn status(&self, pod: &Pod, runtime: &PodRuntime) -> PodStatus {
        let empty = PodStatus::default();
        let executor = &self.shared.executor;
        let before = self.last_status.as_deref();
        generate(
            pod,
            Facts {
                runtime,
                probes: &self.shared.probes.results().snapshot(),
                waiting: &self.waits,
                phase: &self.phase,
                before: before.or(pod.status.as_ref()).unwrap_or(&empty),
                host_ip: &executor.config.node_ip.to_string(),
                runtime_name: &self.shared.runtime_name,
                now: now_millis(),
            },
        )
    }

    fn publish(&mut self, pod: &Arc<Pod>, runtime: &PodRuntime) {
        let status = Arc::new(self.status(pod, runtime));
        self.last_status = Some(status.clone());
        self.shared.store.set_status(&self.uid, status.clone());
        self.shared
            .status
            .set(self.uid.clone(), pod.clone(), status);
    }

    async fn sync(&mut self, pod: &Arc<Pod>, runtime: &PodRuntime) -> Option<Duration> {
        let snapshot = self.shared.probes.results().snapshot();
        let actions = compute_pod_actions(
            pod,
            World {
                runtime,
                probes: &snapshot,
                backoff: &self.backoff,
                now: now_millis(),
            },
        );
        let left = deadline_left(pod, self.last_status.as_deref());
        if actions == PodActions::default() {
            self.waits.clear();
            self.prune(runtime).await;
            return left;
        }
        let cut = CancellationToken::new();
        let executor = self.shared.executor.clone();
        let outcome = {
            let work = executor.perform(pod, actions, runtime, &mut self.backoff, &cut);
            tokio::pin!(work);
            let mut mailbox = self.mailbox.clone();
            loop {
                tokio::select! {
                    outcome = &mut work => break outcome,
                    // Cancel-safe: a clone of the receiver only looks; the next step
                    // takes the mail itself.
                    changed = mailbox.changed() => {
                        if changed.is_err() || mailbox.borrow().stop.is_some() {
                            cut.cancel();
                        }
                        if changed.is_err() {
                            break work.await;
                        }
                    }
                }
            }
        };
        let changed = self.waits != outcome.waits;
        self.waits = outcome.waits;
        if changed {
            self.publish(pod, runtime);
        }
        match (outcome.again, left) {
            (Some(again), Some(left)) => Some(again.min(left)),
            (again, left) => again.or(left),
        }
    }

    async fn prune(&self, runtime: &PodRuntime) {
        let cri = &self.shared.executor.cri;
        let chosen = prune::choose(runtime);
        for (id, log) in chosen.containers {
            match cri.remove_container(&id).await {
                Ok(()) => self.remove_log(&log),
                Err(error) => tracing::debug!(error = chain(&error), "cannot remove a container"),
            }
        }
        for id in chosen.sandboxes {
            if let Err(error) = cri.remove_pod_sandbox(&id).await {
                tracing::debug!(error = chain(&error), "cannot remove a sandbox");
            }
        }
    }

    /// Removes the log of a container that is gone, with everything it was rotated to.
    fn remove_log(&self, log: &str) {
        let logs = &self.shared.executor.config.pod_logs_dir;
        let removed = LogFiles::open(logs, Path::new(log)).and_then(|log| log.remove_all());
        if let Err(error) = removed {
            tracing::debug!(log, %error, "cannot remove a log");
        }
    }

    async fn kill(
        &mut self,
        pod: &Arc<Pod>,
        runtime: &PodRuntime,
        grace: Duration,
    ) -> Option<Duration> {
        self.waits.clear();
        self.shared.probes.follow(&self.uid, pod, runtime, true);
        let killer = self.shared.executor.killer.clone();
        let mut mailbox = self.mailbox.clone();
        let sooner = async {
            while mailbox.changed().await.is_ok() {
                let shorter = |mail: &Mail| mail.stop.as_ref().is_some_and(|(_, g)| *g < grace);
                if shorter(&mailbox.borrow()) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            stopped = killer.pod(pod, runtime, grace) => match stopped {
                Ok(()) => Some(Duration::ZERO),
                Err(error) => {
                    tracing::warn!(pod = %self.uid, error = chain(&error), "cannot stop a pod");
                    Some(Duration::from_secs(1))
                }
            },
            // Stops are idempotent: the next step asks again, with the shorter grace.
            () = sooner => Some(Duration::ZERO),
        }
    }

    async fn clean_up(&mut self, runtime: &PodRuntime) -> Option<Duration> {
        let executor = &self.shared.executor;
        self.shared.probes.forget(&self.uid);
        executor.images.forget(self.uid.as_str());
        for sandbox in &runtime.sandboxes {
            if let Err(error) = executor.cri.stop_pod_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %self.uid, error = chain(&error), "cannot stop a sandbox");
                return Some(Duration::from_secs(1));
            }
        }
        if let Err(error) = executor.volumes.teardown(&self.uid).await {
            tracing::warn!(pod = %self.uid, error = chain(&error), "cannot tear volumes down");
            return Some(Duration::from_secs(1));
        }
        if let Err(error) = executor.cgroups.remove(&self.uid).await {
            tracing::warn!(pod = %self.uid, error = chain(&error), "cannot remove the cgroup");
            return Some(Duration::from_secs(1));
        }
        self.cleaned = true;
        Some(Duration::ZERO)
    }

    async fn remove(&mut self, pod: &Arc<Pod>, runtime: &PodRuntime) -> Option<Duration> {
        let executor = &self.shared.executor;
        for sandbox in &runtime.sandboxes {
            if let Err(error) = executor.cri.remove_pod_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %self.uid, error = chain(&error), "cannot remove a sandbox");
                return Some(Duration::from_secs(1));
            }
        }
        for record in &runtime.containers {
            if let Err(error) = executor.cri.remove_container(&record.id).await {
                tracing::warn!(pod = %self.uid, error = chain(&error), "cannot remove a container");
                return Some(Duration::from_secs(1));
            }
        }
        let logs = cri_config::log_dir(&executor.config.pod_logs_dir, pod);
        // The directory last: where it is there, the logs are still looked for.
        for dir in [logs, executor.config.pod_dir(self.uid.as_str())] {
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(dir = %dir.display(), %error, "cannot remove a directory");
                    return Some(Duration::from_secs(1));
                }
                _ => {}
            }
        }
        self.shared
            .status
            .delete(self.uid.clone(), pod.clone())
            .await;
        self.removed = true;
        Some(Duration::ZERO)
    }
}

/// The pod's own grace period.
#[must_use]
pub fn grace_of(pod: &Pod) -> Duration {
    Duration::from_secs(u64::try_from(super::grace_period(pod)).unwrap_or_default())
}

/// Time left until `activeDeadlineSeconds` have passed since the pod's start.
fn deadline_left(pod: &Pod, status: Option<&PodStatus>) -> Option<Duration> {
    let deadline = pod.spec.as_ref()?.active_deadline_seconds?;
    let started = status.or(pod.status.as_ref())?.start_time.as_ref()?;
    let end = started.0.as_millisecond() + deadline * 1000;
    let left = u64::try_from(end - now_millis()).unwrap_or_default();
    Some(Duration::from_millis(left))
}
