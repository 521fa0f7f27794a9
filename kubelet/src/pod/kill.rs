//! Stopping containers and whole pods within their grace period.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::hooks;
use super::runtime::{ContainerRecord, PodRuntime};
use super::{container as spec_of, init_containers, is_sidecar};
use crate::cri::{Cri, CriError};
use crate::event::{Kind, Recorder};

/// The least time a container gets after its stop signal.
const FLOOR: Duration = Duration::from_secs(2);

/// Stops containers; a cheap handle.
#[derive(Clone, Debug)]
pub struct Killer {
    /// The runtime.
    pub cri: Cri,
    /// Where `Killing` is reported.
    pub recorder: Recorder,
}

impl Killer {
    /// Stops one container: event, preStop hook, stop signal, SIGKILL.
    ///
    /// # Errors
    /// When the runtime cannot stop it.
    pub async fn container(
        &self,
        pod: &Arc<Pod>,
        record: &ContainerRecord,
        pod_ip: &str,
        message: Option<&str>,
        grace: Duration,
    ) -> Result<(), CriError> {
        let began = Instant::now();
        let default = format!("Stopping container {}", record.name);
        let about = (pod.as_ref(), record.name.as_str());
        self.recorder
            .container(about, Kind::Normal, "Killing", message.unwrap_or(&default));
        let spec = spec_of(pod, &record.name);
        let hook = spec
            .and_then(|c| c.lifecycle.as_ref())
            .and_then(|l| l.pre_stop.as_ref());
        if let (Some(spec), Some(hook)) = (spec, hook)
            && !grace.is_zero()
        {
            let run = hooks::run(&self.cri, hook, spec, (&record.id, pod_ip), Some(grace));
            if let Err(error) = run.await {
                self.recorder.container(
                    about,
                    Kind::Warning,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {error}"),
                );
            }
        }
        let left = grace.saturating_sub(began.elapsed());
        let left = if grace.is_zero() {
            grace
        } else {
            left.max(FLOOR)
        };
        self.cri.stop_container(&record.id, left).await
    }

    /// Stops every container, the apps side by side and then the sidecars in reverse
    /// order, and every sandbox.
    ///
    /// # Errors
    /// The first thing that could not be stopped; everything is tried.
    pub async fn pod(
        &self,
        pod: &Arc<Pod>,
        runtime: &PodRuntime,
        grace: Duration,
    ) -> Result<(), CriError> {
        let began = Instant::now();
        let ip = runtime.ips().first().cloned().unwrap_or_default();
        let order = |record: &ContainerRecord| {
            init_containers(pod)
                .iter()
                .position(|c| c.name == record.name && is_sidecar(c))
        };
        let (mut sidecars, apps): (Vec<_>, Vec<_>) =
            runtime.running().partition(|r| order(r).is_some());
        sidecars.sort_by_key(|r| std::cmp::Reverse(order(r)));
        let stops = apps
            .into_iter()
            .map(|record| self.container(pod, record, &ip, None, grace));
        let mut results = join_all(stops).await;
        for record in sidecars {
            let left = grace.saturating_sub(began.elapsed());
            results.push(self.container(pod, record, &ip, None, left).await);
        }
        for sandbox in &runtime.sandboxes {
            results.push(self.cri.stop_pod_sandbox(&sandbox.id).await);
        }
        results.into_iter().collect()
    }
}
