//! What every `kube::runtime` controller shares: its errors and its loop.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use berth_events::refusal;
use futures::{Stream, StreamExt, TryFuture};
use kube::runtime::controller::{Action, Controller, Error};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// A run that failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);
/// A run that lost a race for an object is tried again at once.
const RETRY_CONFLICT: Duration = Duration::from_millis(20);

/// Why a run of a controller failed; it will be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The server refused or did not answer.
    #[error("cannot {step}")]
    Api {
        /// What was being done, and to what.
        step: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object cannot be acted on as it is.
    #[error("{0}")]
    Invalid(String),
}

impl ReconcileError {
    fn is_conflict(&self) -> bool {
        matches!(self, ReconcileError::Api { source, .. } if is_code(source, 409))
    }

    /// The object's namespace is being deleted: what was to be made is no longer wanted.
    fn is_namespace_terminating(&self) -> bool {
        matches!(self, ReconcileError::Api { source, .. }
            if refusal::is_namespace_terminating(source))
    }
}

/// Whether the server answered with this HTTP code.
pub(crate) fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Names the step in an error of the client.
pub(crate) trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, ReconcileError>;
}

impl<T> Step<T> for Result<T, kube::Error> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, ReconcileError> {
        self.map_err(|source| ReconcileError::Api {
            step: step(),
            source: Box::new(source),
        })
    }
}

/// Treats "not found" as done: whoever deleted it did our work.
pub(crate) fn gone_is_done<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_code(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Drives a controller until `stop`; failures are logged once, here.
pub(crate) async fn drive<K, Ctx, Run, Fut>(
    name: &'static str,
    controller: Controller<K>,
    context: Arc<Ctx>,
    reconcile: Run,
    stop: CancellationToken,
) where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Debug + Unpin,
    Ctx: Send + Sync + 'static,
    Run: FnMut(Arc<K>, Arc<Ctx>) -> Fut + Send + 'static,
    Fut: TryFuture<Ok = Action, Error = ReconcileError> + Send + 'static,
{
    let runs = controller.graceful_shutdown_on(stop.cancelled_owned()).run(
        reconcile,
        error_policy,
        context,
    );
    log_failures(name, runs).await;
}

fn error_policy<K, Ctx>(_object: Arc<K>, error: &ReconcileError, _context: Arc<Ctx>) -> Action {
    Action::requeue(if error.is_conflict() {
        RETRY_CONFLICT
    } else {
        RETRY
    })
}

async fn log_failures<T, Q>(
    name: &'static str,
    runs: impl Stream<Item = Result<T, Error<ReconcileError, Q>>>,
) where
    Q: std::error::Error + 'static,
{
    let mut runs = std::pin::pin!(runs);
    while let Some(run) = runs.next().await {
        match run {
            Ok(_) | Err(Error::ObjectNotFound(_)) => {}
            Err(Error::ReconcilerFailed(error, object)) if error.is_conflict() => {
                let error = chain(&error);
                debug!(controller = name, %object, error, "lost a race; trying again");
            }
            Err(Error::ReconcilerFailed(error, object)) if error.is_namespace_terminating() => {
                debug!(controller = name, %object, "its namespace ends; nothing made");
            }
            Err(error) => warn!(
                controller = name,
                error = chain(&error),
                "run failed; trying again"
            ),
        }
    }
}

/// The error and all its causes in one line, a refusal of the server in the server's words.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let boxed = || Some(&**error.downcast_ref::<Box<kube::Error>>()?);
    if let Some(refused) = error.downcast_ref::<kube::Error>().or_else(boxed)
        && matches!(refused, kube::Error::Api(_))
    {
        return refusal::text(refused);
    }
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// The configuration of every watch.
pub(crate) fn watch_all() -> watcher::Config {
    watcher::Config::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_without_the_fields_of_the_answer() {
        let status = kube::core::Status::failure("pods \"p\" not found", "NotFound");
        let failed: Result<(), _> = Err(kube::Error::Api(Box::new(status)));
        let error = failed.step(|| "read pod p".into()).unwrap_err();
        assert_eq!(chain(&error), "cannot read pod p: pods \"p\" not found");
    }
}
