//! The probe workers: one task for each probe of each running container instance.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::check::{self, Subject};
use super::{Kind, Results};
use crate::cri::Cri;
use crate::event::{self, Recorder};
use crate::pod::runtime::{ContainerState, PodRuntime};
use crate::pod::{PodUid, container, host_network};

/// A run that fails is tried again this often before it counts.
const RETRIES: usize = 3;

/// A probe's verdict changed: the pod's worker has to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// The pod.
    pub pod: PodUid,
}

/// A cheap handle through which pod workers have their containers probed.
#[derive(Clone, Debug)]
pub struct Probes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cri: Cri,
    recorder: Recorder,
    host_ip: String,
    results: Results,
    changes: mpsc::UnboundedSender<ProbeResult>,
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<()>,
    running: HashMap<(String, Kind), (PodUid, AbortHandle)>,
}

impl Probes {
    /// Probes run over `cri`; verdicts that change are sent to `changes`.
    #[must_use]
    pub fn new(
        cri: Cri,
        recorder: Recorder,
        host_ip: String,
        changes: mpsc::UnboundedSender<ProbeResult>,
    ) -> Probes {
        Probes {
            inner: Arc::new(Inner {
                cri,
                recorder,
                host_ip,
                results: Results::default(),
                changes,
                tasks: Mutex::default(),
            }),
        }
    }

    /// The results, for decisions and statuses.
    #[must_use]
    pub fn results(&self) -> &Results {
        &self.inner.results
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.inner
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Probes what runs of the pod and nothing else of it; idempotent.
    ///
    /// With `ending`, liveness and startup no longer matter and only readiness goes on.
    pub fn follow(&self, uid: &PodUid, pod: &Arc<Pod>, runtime: &PodRuntime, ending: bool) {
        let mut tasks = self.tasks();
        while tasks.set.try_join_next().is_some() {}
        let running: Vec<_> = runtime
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Running)
            .collect();
        tasks.running.retain(|(id, kind), (owner, task)| {
            let alive = running.iter().any(|c| c.id == *id);
            let keep = owner != uid || (alive && (!ending || *kind == Kind::Readiness));
            if !keep {
                task.abort();
            }
            if owner == uid && !alive {
                self.inner.results.remove(id);
            }
            keep
        });
        let ip = if host_network(pod) {
            self.inner.host_ip.clone()
        } else {
            runtime.ips().first().cloned().unwrap_or_default()
        };
        for record in running {
            let Some(spec) = container(pod, &record.name) else {
                continue;
            };
            for (kind, probe) in probes_of(spec) {
                let key = (record.id.clone(), kind);
                if tasks.running.contains_key(&key) || (ending && kind != Kind::Readiness) {
                    continue;
                }
                let worker = Worker {
                    inner: self.inner.clone(),
                    uid: uid.clone(),
                    pod: pod.clone(),
                    kind,
                    probe: probe.clone(),
                    has_startup: spec.startup_probe.is_some(),
                    subject: Subject {
                        container_id: record.id.clone(),
                        pod_ip: ip.clone(),
                        container: spec.clone(),
                    },
                    age: Duration::from_nanos(age_nanos(record.started_at)),
                };
                worker.begin(pod);
                let handle = tasks.set.spawn(worker.run());
                tasks.running.insert(key, (uid.clone(), handle));
            }
        }
    }

    /// Ends every probe of a pod.
    pub fn forget(&self, uid: &PodUid) {
        let mut tasks = self.tasks();
        let results = &self.inner.results;
        tasks.running.retain(|(id, _), (owner, task)| {
            if owner == uid {
                task.abort();
                results.remove(id);
            }
            owner != uid
        });
    }
}

fn age_nanos(started_at: i64) -> u64 {
    let now = crate::clock::now_millis().saturating_mul(1_000_000);
    u64::try_from(now.saturating_sub(started_at)).unwrap_or_default()
}

fn probes_of(spec: &Container) -> impl Iterator<Item = (Kind, &Probe)> {
    [
        (Kind::Startup, &spec.startup_probe),
        (Kind::Liveness, &spec.liveness_probe),
        (Kind::Readiness, &spec.readiness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
}

struct Worker {
    inner: Arc<Inner>,
    uid: PodUid,
    pod: Arc<Pod>,
    kind: Kind,
    probe: Probe,
    has_startup: bool,
    subject: Subject,
    age: Duration,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
}

impl Worker {
    /// A container that was ready (or started) before this kubelet was stays so until its
    /// first verdict: a restart of the kubelet takes no endpoint away (KEP-4781).
    fn begin(&self, pod: &Pod) {
        let status = pod.status.as_ref();
        let mut known = status
            .into_iter()
            .flat_map(|s| {
                s.container_statuses
                    .iter()
                    .chain(&s.init_container_statuses)
            })
            .flatten();
        let Some(before) = known.find(|s| {
            let id = s.container_id.as_deref().unwrap_or_default();
            id.ends_with(&self.subject.container_id)
        }) else {
            return;
        };
        let id = &self.subject.container_id;
        match self.kind {
            Kind::Readiness if before.ready => {
                self.inner.results.set(id, Kind::Readiness, true);
            }
            Kind::Startup if before.started == Some(true) => {
                self.inner.results.set(id, Kind::Startup, true);
            }
            _ => {}
        }
    }

    async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        tokio::time::sleep(delay.saturating_sub(self.age)).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut row, mut last) = (0, None);
        loop {
            ticks.tick().await;
            let id = &self.subject.container_id;
            let started = self.inner.results.get(id, Kind::Startup) == Some(true);
            match self.kind {
                // Done its work: the container has started.
                Kind::Startup if started => return,
                Kind::Startup => {}
                // Held until the startup probe has passed.
                _ if self.has_startup && !started => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    ticks.reset_immediately();
                    continue;
                }
                _ => {}
            }
            let finding = self.find().await;
            let Some(passed) = finding.passed else {
                let (kind, output) = (self.kind.as_str(), finding.output);
                tracing::debug!(container = id, kind, output, "a probe could not be made");
                continue;
            };
            row = if last == Some(passed) { row + 1 } else { 1 };
            last = Some(passed);
            if !passed {
                self.report(&finding.output);
            }
            let threshold = if passed {
                self.probe.success_threshold.unwrap_or(1)
            } else {
                self.probe.failure_threshold.unwrap_or(3)
            };
            if row >= threshold.max(1) {
                self.conclude(passed);
                // The container will be killed for it; the next one is probed anew.
                if !passed && self.kind != Kind::Readiness {
                    return;
                }
            }
        }
    }

    /// One run, with retries where the probe itself could not be made.
    async fn find(&self) -> check::Finding {
        let mut finding = check::run(&self.inner.cri, &self.probe, &self.subject).await;
        for _ in 1..RETRIES {
            if finding.passed.is_some() {
                break;
            }
            finding = check::run(&self.inner.cri, &self.probe, &self.subject).await;
        }
        finding
    }

    fn report(&self, output: &str) {
        let message = format!("{} probe failed: {output}", self.kind.as_str());
        self.inner.recorder.container(
            (&self.pod, &self.subject.container.name),
            event::Kind::Warning,
            "Unhealthy",
            message,
        );
    }

    fn conclude(&self, passed: bool) {
        let id = &self.subject.container_id;
        if self.inner.results.set(id, self.kind, passed) {
            // Nobody listens any more only when the kubelet is going down.
            let _ = self.inner.changes.send(ProbeResult {
                pod: self.uid.clone(),
            });
        }
    }
}
