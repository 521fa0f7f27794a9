//! One loop over everything that can happen. It routes; what to do is decided elsewhere.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::mirror::Mirrors;
use crate::node::Pressure;
use crate::orphan::Orphans;
use crate::pleg::PodLifecycleEvent;
use crate::pod::admit::{NodeFit, Rejection, admit};
use crate::pod::lifecycle::Reason;
use crate::pod::worker::{self, Mail, Shared, grace_of};
use crate::pod::{self, PodUid, is_static};
use crate::probe::ProbeResult;
use crate::source::merge::Merge;
use crate::source::{Origin, PodUpdate, SourceEvent};

/// Everything the loop reacts to.
#[derive(Debug)]
pub enum Event {
    /// A source of pods has spoken.
    Desired(SourceEvent),
    /// Something happened to a container.
    Pleg(PodLifecycleEvent),
    /// A probe's verdict changed.
    Probe(ProbeResult),
    /// The node needs a pod's resources back.
    Evict {
        pod: PodUid,
        why: Rejection,
        grace: Duration,
    },
    /// A worker is done and nothing of its pod is left.
    Finished(PodUid),
    /// The runtime has something of a pod that nobody works on.
    Orphan(Box<Pod>),
    /// Time to look after mirrors.
    Tick,
    /// Time to look for what belongs to no pod.
    Housekeep,
}

/// A request of the eviction code: stop this pod, for this reason, within this time.
#[derive(Debug, Clone)]
pub struct Evict {
    /// The pod.
    pub pod: PodUid,
    /// `status.reason` and `status.message`.
    pub why: Rejection,
    /// Its grace period.
    pub grace: Duration,
}

/// Where events come from.
#[derive(Debug)]
pub struct Inputs {
    /// Sources of pods.
    pub sources: mpsc::UnboundedReceiver<SourceEvent>,
    /// Container events.
    pub pleg: mpsc::UnboundedReceiver<PodLifecycleEvent>,
    /// Probe verdicts.
    pub probes: mpsc::UnboundedReceiver<ProbeResult>,
    /// Evictions.
    pub evictions: mpsc::UnboundedReceiver<Evict>,
    /// Workers that are done.
    pub finished: mpsc::UnboundedReceiver<PodUid>,
    /// Pods that only the runtime knows.
    pub orphans: mpsc::UnboundedReceiver<Pod>,
}

/// Grace period of a pod whose object was deleted by force.
const FORCED: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(2);
const HOUSEKEEP: Duration = Duration::from_secs(10);

/// What pods are admitted by.
#[derive(Debug)]
pub struct Gate {
    /// What the node has to give.
    pub node: NodeFit,
    /// What it is short of.
    pub pressure: watch::Receiver<Pressure>,
}

/// The loop's state: who works on what.
#[derive(Debug)]
pub struct SyncLoop {
    shared: Shared,
    gate: Gate,
    merge: Merge,
    needed: Vec<Origin>,
    workers: HashMap<PodUid, watch::Sender<Mail>>,
    /// New forms of static pods whose former one is still ending, by name.
    held: HashMap<String, Arc<Pod>>,
    tasks: JoinSet<()>,
    mirrors: Mirrors,
    orphans: Orphans,
}

impl SyncLoop {
    /// A loop over `needed` sources. `gate` is what admission measures pods against.
    #[must_use]
    pub fn new(
        shared: Shared,
        gate: Gate,
        needed: Vec<Origin>,
        mirrors: Mirrors,
        orphans: Orphans,
    ) -> SyncLoop {
        SyncLoop {
            shared,
            gate,
            merge: Merge::default(),
            needed,
            workers: HashMap::new(),
            held: HashMap::new(),
            tasks: JoinSet::new(),
            mirrors,
            orphans,
        }
    }

    /// Runs until dropped; pods keep running when it is.
    pub async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(TICK);
        let mut housekeep = tokio::time::interval(HOUSEKEEP);
        loop {
            // Every arm is cancel-safe: channels lose no message, intervals no tick.
            let event = tokio::select! {
                Some(event) = inputs.sources.recv() => Event::Desired(event),
                Some(event) = inputs.pleg.recv() => Event::Pleg(event),
                Some(event) = inputs.probes.recv() => Event::Probe(event),
                Some(e) = inputs.evictions.recv() => Event::Evict {
                    pod: e.pod, why: e.why, grace: e.grace,
                },
                Some(uid) = inputs.finished.recv() => Event::Finished(uid),
                Some(pod) = inputs.orphans.recv() => Event::Orphan(Box::new(pod)),
                _ = tick.tick() => Event::Tick,
                _ = housekeep.tick() => Event::Housekeep,
            };
            self.route(event);
        }
    }

    fn route(&mut self, event: Event) {
        match event {
            Event::Desired(event) => {
                for update in self.merge.apply(event) {
                    self.update(update);
                }
            }
            Event::Pleg(event) => self.wake(&event.pod),
            Event::Probe(result) => self.wake(&result.pod),
            Event::Evict { pod, why, grace } => {
                if let Some(mailbox) = self.workers.get(&pod) {
                    mailbox.send_modify(|mail| mail.stop(Reason::Evicted(why), grace));
                }
            }
            Event::Finished(uid) => self.finished(&uid),
            Event::Orphan(pod) => self.adopt_to_remove(*pod),
            Event::Tick => {
                while self.tasks.try_join_next().is_some() {}
                self.mirrors.reconcile(&self.shared.store);
            }
            Event::Housekeep => {
                if self.merge.is_synced(&self.needed) {
                    let working: HashSet<PodUid> = self.workers.keys().cloned().collect();
                    self.orphans.look(working);
                }
            }
        }
    }

    fn wake(&self, uid: &PodUid) {
        if let Some(mailbox) = self.workers.get(uid) {
            mailbox.send_modify(|mail| mail.wake += 1);
        }
    }

    fn update(&mut self, update: PodUpdate) {
        match update {
            PodUpdate::Set(pod) => self.set(pod),
            PodUpdate::Gone(pod) => self.gone(&pod),
            PodUpdate::Mirror(pod) => {
                let key = pod::key(&pod);
                self.shared.store.set_mirror(pod);
                self.rewrite_status(&key);
                self.mirrors.reconcile(&self.shared.store);
            }
            PodUpdate::MirrorGone(pod) => {
                let key = pod::key(&pod);
                let current = self.shared.store.mirror(&key);
                if current.is_some_and(|m| m.metadata.uid == pod.metadata.uid) {
                    self.shared.store.remove_mirror(&key);
                }
                self.mirrors.reconcile(&self.shared.store);
            }
            PodUpdate::Synced(origin) => {
                tracing::info!(?origin, "pod source has synced");
            }
        }
    }

    /// The mirror of a static pod has changed: its status is written there.
    fn rewrite_status(&self, key: &str) {
        for entry in self.shared.store.all() {
            if is_static(&entry.pod)
                && pod::key(&entry.pod) == key
                && let Some(uid) = PodUid::of(&entry.pod)
            {
                self.shared.status.again(uid);
            }
        }
    }

    fn set(&mut self, pod: Arc<Pod>) {
        let Some(uid) = PodUid::of(&pod) else { return };
        if let Some(mailbox) = self.workers.get(&uid) {
            self.shared.store.set(uid, pod.clone());
            mailbox.send_modify(|mail| {
                if let Some((reason, grace)) = stop_asked(&pod) {
                    mail.stop(reason, grace);
                }
                mail.unwanted |= pod.metadata.deletion_timestamp.is_some();
                mail.pod = pod;
            });
            return;
        }
        if is_static(&pod) {
            let key = pod::key(&pod);
            let former = self.shared.store.all();
            if former
                .iter()
                .any(|e| is_static(&e.pod) && pod::key(&e.pod) == key)
            {
                self.held.insert(key, pod);
                return;
            }
        }
        let stop = stop_asked(&pod).or_else(|| self.refusal(&pod));
        let unwanted = pod.metadata.deletion_timestamp.is_some();
        self.start(uid, pod, stop, unwanted);
    }

    /// Admission; a pod that has been started here before is not judged again.
    fn refusal(&self, pod: &Arc<Pod>) -> Option<(Reason, Duration)> {
        let status = pod.status.as_ref();
        if status.and_then(|s| s.start_time.as_ref()).is_some() {
            return None;
        }
        let others: Vec<Arc<Pod>> = self
            .shared
            .store
            .all()
            .into_iter()
            .filter(|e| {
                let status = e.status.as_deref().or(e.pod.status.as_ref());
                let phase = status.and_then(|s| s.phase.as_deref());
                !matches!(phase, Some("Succeeded" | "Failed"))
            })
            .map(|e| e.pod)
            .collect();
        let pressure = *self.gate.pressure.borrow();
        let rejection = admit(pod, &self.gate.node, pressure, &others).err()?;
        tracing::info!(
            pod = pod::key(pod),
            reason = rejection.reason,
            "pod refused"
        );
        self.shared.executor.recorder.pod(
            pod,
            crate::event::Kind::Warning,
            "FailedAdmission",
            format!("{}: {}", rejection.reason, rejection.message),
        );
        Some((Reason::Rejected(rejection), Duration::ZERO))
    }

    fn start(
        &mut self,
        uid: PodUid,
        pod: Arc<Pod>,
        stop: Option<(Reason, Duration)>,
        unwanted: bool,
    ) {
        tracing::info!(pod = pod::key(&pod), %uid, "pod taken");
        self.shared.store.set(uid.clone(), pod.clone());
        let mail = Mail {
            pod,
            stop,
            unwanted,
            wake: 0,
        };
        let (sender, receiver) = watch::channel(mail);
        self.workers.insert(uid.clone(), sender);
        self.tasks
            .spawn(worker::run(self.shared.clone(), uid, receiver));
        self.weigh();
    }

    fn gone(&mut self, pod: &Arc<Pod>) {
        let key = pod::key(pod);
        if self
            .held
            .get(&key)
            .is_some_and(|h| h.metadata.uid == pod.metadata.uid)
        {
            self.held.remove(&key);
            return;
        }
        let Some(uid) = PodUid::of(pod) else { return };
        if let Some(mailbox) = self.workers.get(&uid) {
            mailbox.send_modify(|mail| {
                mail.stop(Reason::Removed, grace_gone(pod));
                mail.unwanted = true;
            });
        }
    }

    fn finished(&mut self, uid: &PodUid) {
        self.workers.remove(uid);
        let entry = self.shared.store.get(uid);
        self.shared.store.remove(uid);
        self.weigh();
        let Some(entry) = entry else { return };
        tracing::info!(pod = pod::key(&entry.pod), %uid, "pod gone");
        if let Some(pod) = self.held.remove(&pod::key(&entry.pod)) {
            self.set(pod);
        }
    }

    /// What the runtime has though no source wants it is stopped by a worker of its own.
    fn adopt_to_remove(&mut self, pod: Pod) {
        let Some(uid) = PodUid::of(&pod) else { return };
        if self.workers.contains_key(&uid) || self.merge.wants(&uid) {
            return;
        }
        let stop = Some((Reason::Removed, grace_of(&pod)));
        self.start(uid, Arc::new(pod), stop, true);
    }

    fn weigh(&self) {
        let pods: Vec<_> = self.shared.store.all().into_iter().map(|e| e.pod).collect();
        let cgroups = &self.shared.executor.cgroups;
        if let Err(error) = cgroups.weigh_burstable(pods.iter().map(AsRef::as_ref)) {
            tracing::warn!(
                error = crate::chain::chain(&error),
                "cannot weigh burstable pods"
            );
        }
    }
}

/// What the API object itself asks for: deletion, or nothing more because it has ended.
fn stop_asked(pod: &Arc<Pod>) -> Option<(Reason, Duration)> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some((Reason::Deleted, grace_now(pod)));
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")).then(|| (Reason::Completed, grace_of(pod)))
}

/// The grace period in force: that of the deletion where there is one.
fn grace_now(pod: &Pod) -> Duration {
    match pod.metadata.deletion_grace_period_seconds {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        None => grace_of(pod),
    }
}

/// The grace period of a pod that is not wanted any more. An object that is gone while its
/// containers run was deleted by force, since the kubelet itself deletes it last: nobody
/// waits for it any more.
fn grace_gone(pod: &Pod) -> Duration {
    if is_static(pod) {
        grace_of(pod)
    } else {
        grace_now(pod).min(FORCED)
    }
}
