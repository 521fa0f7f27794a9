//! Lifecycle hooks: postStart after the start, preStop before the stop signal.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::cri::Cri;
use crate::probe::{check, http};

/// Longest a hook may take when nothing else bounds it.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The command could not be run.
    #[error("Exec lifecycle hook ({command:?}) failed: {reason}")]
    Exec {
        command: Vec<String>,
        reason: String,
    },
    /// The request failed.
    #[error("HTTP lifecycle hook failed: {0}")]
    Http(String),
    /// It took longer than the grace period.
    #[error("hook did not end within {0:?}")]
    Timeout(Duration),
}

/// Runs a hook in, or against, a container; `limit` is what is left of the grace period.
///
/// # Errors
/// When the hook fails or does not end in time.
pub async fn run(
    cri: &Cri,
    hook: &LifecycleHandler,
    container: &Container,
    about: (&str, &str),
    limit: Option<Duration>,
) -> Result<(), HookError> {
    let limit = limit.unwrap_or(NO_LIMIT);
    match tokio::time::timeout(limit, once(cri, hook, container, about, limit)).await {
        Ok(result) => result,
        Err(_) => Err(HookError::Timeout(limit)),
    }
}

async fn once(
    cri: &Cri,
    hook: &LifecycleHandler,
    container: &Container,
    (container_id, pod_ip): (&str, &str),
    limit: Duration,
) -> Result<(), HookError> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let failed = |reason: String| HookError::Exec {
            command: command.clone(),
            reason,
        };
        return match cri.exec_sync(container_id, command.clone(), limit).await {
            Ok(output) if output.code == 0 => Ok(()),
            Ok(output) => Err(failed(format!(
                "command exited with {}: {}",
                output.code,
                String::from_utf8_lossy(&output.output)
            ))),
            Err(error) => Err(failed(error.reason())),
        };
    }
    if let Some(get) = &hook.http_get {
        let port = check::port(&get.port, container).unwrap_or(80);
        let target = http::Target::new(get, pod_ip, port);
        return match http::get(&target, limit).await {
            Ok(answer) if answer.status < 400 => Ok(()),
            Ok(answer) => Err(HookError::Http(format!("status {}", answer.status))),
            Err(error) => Err(HookError::Http(error.to_string())),
        };
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    Ok(())
}
