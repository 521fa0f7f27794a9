//! The scheduler: for each pod without a node, one decision, one binding.
//!
//! ```text
//! watch ─▶ queue (active | back-off | unschedulable) ─▶ cycle (pure) ─▶ bind
//!                        ▲                                  │
//!                        └── a node or pod changed ◀── no node fits
//! ```
//! Invariant: [`cycle::decide`] reads an immutable [`snapshot::Snapshot`] and does
//! nothing else; [`bind`] is the only writer.

mod bind;
mod cycle;
mod filter;
mod queue;
mod requests;
mod score;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use tracing::{info, warn};

use bind::Binder;
use cycle::Decision;
use queue::Queue;
use snapshot::{PodView, Snapshot};

/// The name by which pods ask for this scheduler (`spec.schedulerName`).
pub const NAME: &str = "default-scheduler";

enum Change {
    Pod(Box<watcher::Event<Pod>>),
    Node,
}

/// Schedules until `shutdown`. Works against any API server.
pub async fn run(client: Client, shutdown: impl Future<Output = ()>) {
    let (nodes, node_writer) = reflector::store::<Node>();
    let (pods, pod_writer) = reflector::store::<Pod>();
    let node_changes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(node_writer)
        .filter_map(async |event| logged(event).map(|_| Change::Node));
    let pod_changes = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(pod_writer)
        .filter_map(async |event| logged(event).map(|e| Change::Pod(Box::new(e))));
    let mut changes = std::pin::pin!(stream::select(pod_changes, node_changes));
    let mut shutdown = std::pin::pin!(shutdown);
    let mut scheduler = Scheduler {
        nodes,
        pods,
        queue: Queue::default(),
        assumed: BTreeMap::new(),
        binder: Binder::new(client),
    };
    loop {
        let wait = scheduler.queue.next_ready_in(Instant::now());
        // Cancel-safe: a change that is not taken stays in its stream.
        tokio::select! {
            () = &mut shutdown => return,
            change = changes.next() => match change {
                Some(change) => scheduler.note(change),
                None => return,
            },
            () = tokio::time::sleep(wait) => {}
        }
        scheduler.schedule_ready().await;
    }
}

fn logged<K>(event: Result<watcher::Event<K>, watcher::Error>) -> Option<watcher::Event<K>> {
    event
        .inspect_err(|error| warn!(%error, "watch failed; trying again"))
        .ok()
}

struct Scheduler {
    nodes: reflector::Store<Node>,
    pods: reflector::Store<Pod>,
    queue: Queue,
    /// Pods that we bound and whose watch event has not come yet: UID to node.
    assumed: BTreeMap<String, (Arc<Pod>, String)>,
    binder: Binder,
}

impl Scheduler {
    fn note(&mut self, change: Change) {
        let event = match change {
            Change::Node => return self.queue.retry_unschedulable(),
            Change::Pod(event) => *event,
        };
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let view = PodView::of(&pod);
                if view.node.is_some() || view.is_finished {
                    self.assumed.remove(&view.uid);
                    self.queue.remove(&view.uid);
                    if view.is_finished {
                        self.queue.retry_unschedulable();
                    }
                } else if view.is_ours && !self.assumed.contains_key(&view.uid) {
                    self.queue.add(view.uid, view.priority);
                }
            }
            watcher::Event::Delete(pod) => {
                let uid = PodView::of(&pod).uid;
                self.assumed.remove(&uid);
                self.queue.remove(&uid);
                self.queue.retry_unschedulable();
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }

    async fn schedule_ready(&mut self) {
        let mut pods: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        while let Some(uid) = self.queue.pop(Instant::now()) {
            if pods.is_empty() {
                let all = self.pods.state();
                pods = all
                    .into_iter()
                    .filter_map(|pod| Some((pod.metadata.uid.clone()?, pod)))
                    .collect();
            }
            let Some(pod) = pods.get(&uid).cloned() else {
                continue;
            };
            self.schedule(uid, pod).await;
        }
    }

    async fn schedule(&mut self, uid: String, pod: Arc<Pod>) {
        let snapshot = Snapshot::take(&self.nodes.state(), &self.pods.state(), &self.assumed);
        let view = PodView::of(&pod);
        match cycle::decide(&view, &snapshot) {
            Decision::Bind(node) => match self.binder.bind(&pod, &node).await {
                Ok(()) => {
                    info!(pod = %view.name, %node, "pod bound");
                    // Out of the queue, or a change of a node would have it bound again.
                    self.queue.remove(&uid);
                    self.assumed.insert(uid, (pod, node));
                }
                Err(error) => {
                    let error = berth_events::refusal::text(&error);
                    warn!(pod = %view.name, %node, error, "binding refused; trying again");
                    self.queue.back_off(uid, view.priority, Instant::now());
                }
            },
            Decision::Unschedulable(message) => {
                self.binder.report_unschedulable(&pod, &message).await;
                self.queue.park(uid, view.priority);
            }
        }
    }
}
