//! Bringing a container's image onto the node: policy, credentials, back-off, events.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_proto::cri::{AuthConfig, PodSandboxConfig};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

use super::secrets;
use crate::clock::now_millis;
use crate::cri::{Cri, CriError};
use crate::event::{Kind, Recorder};
use crate::objects::Objects;
use crate::pod::backoff::Backoff;
use crate::pod::status::WaitReason;
use crate::pod::uid;

/// A cheap handle through which workers have images pulled.
#[derive(Clone, Debug)]
pub struct Images {
    cri: Cri,
    objects: Objects,
    recorder: Recorder,
    backoff: Arc<Mutex<Backoff>>,
}

/// Why a container has no image yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// `state.waiting` of the container.
    pub wait: WaitReason,
    /// When to try again.
    pub retry: Duration,
}

/// Time between a failed pull and the next look, which then says `ImagePullBackOff`.
const AFTER_FAILURE: Duration = Duration::from_secs(3);

impl Images {
    /// Images pulled over `cri`, with credentials from `objects`.
    #[must_use]
    pub fn new(cri: Cri, objects: Objects, recorder: Recorder) -> Images {
        Images {
            cri,
            objects,
            recorder,
            backoff: Arc::new(Mutex::new(Backoff::new(Duration::from_secs(300)))),
        }
    }

    /// Forgets the back-off of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.lock().clear_prefix(&format!("{pod_uid}/"));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the image on the node, or says why not. `cut` ends a pull that is no longer
    /// wanted.
    ///
    /// # Errors
    /// The reason the container has to wait for.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: PodSandboxConfig,
        cut: &CancellationToken,
    ) -> Result<(), Unavailable> {
        let image = container.image.as_deref().unwrap_or_default();
        let present = self
            .cri
            .image_status(image)
            .await
            .map_err(|error| inspect_failed(image, &error))?
            .is_some();
        let event = |kind, reason, message: String| {
            self.recorder
                .container((pod, &container.name), kind, reason, message);
        };
        match (policy(container), present) {
            ("Never", false) => {
                let message =
                    format!("Container image \"{image}\" is not present with pull policy of Never");
                event(Kind::Warning, "ErrImageNeverPull", message.clone());
                Err(unavailable(
                    "ErrImageNeverPull",
                    message,
                    Duration::from_secs(10),
                ))
            }
            ("Always", _) | (_, false) => {
                let key = format!("{}/{image}", uid(pod));
                self.check_backoff(&key, image, &event)?;
                self.pull(pod, container, sandbox, cut).await
            }
            _ => {
                let message = format!("Container image \"{image}\" already present on machine");
                event(Kind::Normal, "Pulled", message);
                Ok(())
            }
        }
    }

    fn check_backoff(
        &self,
        key: &str,
        image: &str,
        event: &dyn Fn(Kind, &'static str, String),
    ) -> Result<(), Unavailable> {
        let now = now_millis();
        let (failed_at, last, why) = {
            let backoff = self.lock();
            // The event of a pull's back-off is its last failure, when `advance` was called.
            let failed_at = backoff.updated(key).unwrap_or_default();
            let left = backoff.remaining(key, failed_at, now);
            (failed_at, left, backoff.note(key).unwrap_or_default())
        };
        let Some(left) = last else { return Ok(()) };
        let shown = Duration::from_millis(u64::try_from(now - failed_at).unwrap_or_default());
        if shown < AFTER_FAILURE {
            // The failure itself is to be seen before the wait for the next try.
            return Err(unavailable("ErrImagePull", why, AFTER_FAILURE - shown));
        }
        let message = format!("Back-off pulling image \"{image}\"");
        event(Kind::Normal, "BackOff", message.clone());
        event(Kind::Warning, "Failed", "Error: ImagePullBackOff".into());
        let message = if why.is_empty() {
            message
        } else {
            format!("{message}: ErrImagePull: {why}")
        };
        Err(unavailable("ImagePullBackOff", message, left))
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: PodSandboxConfig,
        cut: &CancellationToken,
    ) -> Result<(), Unavailable> {
        let image = container.image.as_deref().unwrap_or_default();
        let about = (pod, container.name.as_str());
        let event = |kind, reason, message: String| {
            self.recorder.container(about, kind, reason, message);
        };
        event(
            Kind::Normal,
            "Pulling",
            format!("Pulling image \"{image}\""),
        );
        let began = Instant::now();
        let pulled = tokio::select! {
            // Cancel-safe: the runtime keeps what was fetched, a later pull goes on there.
            () = cut.cancelled() => return Err(unavailable(
                "ContainerCreating", String::new(), Duration::ZERO)),
            pulled = self.pull_with_credentials(pod, image, sandbox) => pulled,
        };
        let key = format!("{}/{image}", uid(pod));
        match pulled {
            Ok(size) => {
                self.lock().clear(&key);
                let took = short(began.elapsed());
                let message = format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). \
                     Image size: {size} bytes."
                );
                event(Kind::Normal, "Pulled", message);
                Ok(())
            }
            Err(why) => {
                let now = now_millis();
                let mut backoff = self.lock();
                backoff.advance(&key, now, now);
                backoff.set_note(&key, why.clone());
                drop(backoff);
                let message = format!("Failed to pull image \"{image}\": {why}");
                event(Kind::Warning, "Failed", message);
                event(Kind::Warning, "Failed", "Error: ErrImagePull".into());
                Err(unavailable("ErrImagePull", why, AFTER_FAILURE))
            }
        }
    }

    /// Tries every credential that fits, then none; returns the image's size in bytes.
    async fn pull_with_credentials(
        &self,
        pod: &Pod,
        image: &str,
        sandbox: PodSandboxConfig,
    ) -> Result<u64, String> {
        let found = secrets::credentials(pod, image, &self.objects).await;
        let found = found.map_err(|error| error.to_string())?;
        let mut tries: Vec<Option<AuthConfig>> = found.into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut last = String::new();
        for auth in tries {
            match self.cri.pull_image(image, auth, sandbox.clone()).await {
                Ok(_) => {
                    let status = self.cri.image_status(image).await;
                    let found = status.map_err(|error| error.reason())?;
                    return Ok(found.map(|i| i.size).unwrap_or_default());
                }
                Err(error) => last = error.reason(),
            }
        }
        Err(last)
    }
}

/// `imagePullPolicy`, or what the API makes of its absence: `Always` for `:latest`.
fn policy(container: &Container) -> &str {
    match container.image_pull_policy.as_deref() {
        Some(policy @ ("Always" | "IfNotPresent" | "Never")) => policy,
        _ => default_policy(container.image.as_deref().unwrap_or_default()),
    }
}

/// The policy of an image whose container names none.
#[must_use]
pub fn default_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains('@') {
        return "IfNotPresent";
    }
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn inspect_failed(image: &str, error: &CriError) -> Unavailable {
    let reason = error.reason();
    if matches!(error, CriError::Refused { code, .. } if *code == tonic::Code::InvalidArgument) {
        let message = format!("Failed to apply default image tag \"{image}\": {reason}");
        return unavailable("InvalidImageName", message, Duration::from_secs(10));
    }
    let message = format!("Failed to inspect image \"{image}\": {reason}");
    unavailable("ImageInspectError", message, Duration::from_secs(10))
}

fn unavailable(reason: &str, message: String, retry: Duration) -> Unavailable {
    Unavailable {
        wait: WaitReason {
            reason: reason.to_owned(),
            message,
        },
        retry,
    }
}

/// A duration to the millisecond, as Go prints it: `850ms`, `1.204s`, `1m3.5s`.
fn short(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    if minutes > 0 {
        format!("{minutes}m{seconds}s")
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (millis, text) in [
            (0, "0ms"),
            (850, "850ms"),
            (1000, "1s"),
            (1204, "1.204s"),
            (63_500, "1m3.5s"),
        ] {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn latest_is_pulled_always() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(default_policy(image), policy, "{image}");
        }
    }
}
