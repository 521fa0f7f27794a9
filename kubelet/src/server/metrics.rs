//! `/metrics`: what is counted here, in the stock kubelet's names.

use std::sync::Mutex;
use std::sync::PoisonError;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::reply::{Refusal, Reply, typed, whole};
use super::view::PodView;
use crate::pod::runtime::ContainerState;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    path: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    container_state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Node {
    node: String,
}

/// The metrics of one kubelet.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    containers: Family<State, Gauge>,
    running_pods: Gauge,
    desired_pods: Gauge,
    /// One scrape at a time, so that none sees half of another's numbers.
    scrape: Mutex<()>,
}

impl Metrics {
    /// The metrics of the kubelet of `node`.
    pub fn new(node: &str) -> Metrics {
        let mut registry = Registry::with_prefix("kubelet");
        let (requests, containers) = (Family::default(), Family::default());
        let (running_pods, desired_pods) = (Gauge::default(), Gauge::default());
        let name = Family::<Node, Gauge>::default();
        let node = node.to_owned();
        name.get_or_create(&Node { node }).set(1);
        registry.register("node_name", "The node's name, always 1", name);
        let help = "HTTP requests answered, by path and status code";
        registry.register("http_requests", help, requests.clone());
        let help = "Containers known to the runtime, by state";
        registry.register("running_containers", help, containers.clone());
        let help = "Pods that have a ready sandbox";
        registry.register("running_pods", help, running_pods.clone());
        let help = "Pods that should run on this node";
        registry.register("desired_pods", help, desired_pods.clone());
        Metrics {
            registry,
            requests,
            containers,
            running_pods,
            desired_pods,
            scrape: Mutex::new(()),
        }
    }

    /// Counts one answered request.
    pub fn answered(&self, path: &'static str, code: StatusCode) {
        let code = code.as_u16();
        self.requests.get_or_create(&Request { path, code }).inc();
    }

    /// All of them, in OpenMetrics' text form.
    pub fn reply(&self, view: &PodView) -> Result<Reply, Refusal> {
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.observe(view);
        let mut out = String::new();
        text::encode(&mut out, &self.registry)
            .map_err(|error| Refusal::internal(format!("cannot write the metrics: {error}")))?;
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(typed(StatusCode::OK, content_type, whole(out)))
    }

    fn observe(&self, view: &PodView) {
        let entries = view.entries();
        let runtimes: Vec<_> = entries.iter().filter_map(|e| e.runtime.as_ref()).collect();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.desired_pods.set(count(entries.len()));
        let ready = runtimes.iter().filter(|r| r.ready_sandbox().is_some());
        self.running_pods.set(count(ready.count()));
        for (state, container_state) in [
            (ContainerState::Created, "created"),
            (ContainerState::Running, "running"),
            (ContainerState::Exited, "exited"),
            (ContainerState::Unknown, "unknown"),
        ] {
            let all = runtimes.iter().flat_map(|r| &r.containers);
            let number = all.filter(|c| c.state == state).count();
            let gauge = self.containers.get_or_create(&State { container_state });
            gauge.set(count(number));
        }
    }
}
