//! Rotates the logs of running containers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::LogFiles;
use super::plan::compute_plan;
use crate::chain::chain;
use crate::config::Config;
use crate::cri::{Cri, CriError};
use crate::pod::runtime::ContainerState;
use crate::pod::store::PodStore;

/// Why a log was not rotated.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    /// The log or its directory cannot be looked at.
    #[error("cannot look at the log")]
    Look(#[source] io::Error),
    /// An older file cannot be removed.
    #[error("cannot remove `{name}`")]
    Remove {
        name: String,
        #[source]
        source: io::Error,
    },
    /// An older file cannot be compressed.
    #[error("cannot compress `{name}`")]
    Compress {
        name: String,
        #[source]
        source: io::Error,
    },
    /// The log cannot be renamed.
    #[error("cannot rename the log to `{name}`")]
    Rename {
        name: String,
        #[source]
        source: io::Error,
    },
    /// The runtime does not open a new file.
    #[error("the runtime does not open a new log")]
    Reopen(#[source] CriError),
}

/// Looks at every running container's log for as long as the kubelet runs.
pub async fn run(config: Arc<Config>, cri: Cri, store: PodStore) {
    let Some(max_size) = config.container_logs.max_size else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(config.container_logs.interval).await;
        for (id, log) in running(&store) {
            let rotation = Rotation {
                logs: &config.pod_logs_dir,
                max_files: config.container_logs.max_files,
                max_size,
                cri: &cri,
            };
            if let Err(error) = rotation.look(&id, &log).await {
                let (error, log) = (chain(&error), log.display());
                tracing::warn!(container = id, %log, error, "the log was not rotated");
            }
        }
    }
}

/// Ids and logs of the containers that run, as far as was seen.
fn running(store: &PodStore) -> Vec<(String, PathBuf)> {
    let entries = store.all().into_iter();
    let records = entries.filter_map(|entry| entry.runtime);
    let mut found = Vec::new();
    for runtime in records {
        let running = runtime.containers.iter();
        let running = running.filter(|c| c.state == ContainerState::Running);
        found.extend(running.map(|c| (c.id.clone(), PathBuf::from(&c.log_path))));
    }
    found
}

/// What every log is measured against.
struct Rotation<'a> {
    logs: &'a Path,
    max_files: usize,
    max_size: u64,
    cri: &'a Cri,
}

impl Rotation<'_> {
    /// Rotates the log when it is too large. A log that is missing was renamed by a kubelet
    /// that ended before the runtime had a new one: it gets it now.
    async fn look(&self, id: &str, log: &Path) -> Result<(), RotateError> {
        let files = LogFiles::open(self.logs, log).map_err(RotateError::Look)?;
        match files.size().map_err(RotateError::Look)? {
            None => self.reopen(id).await,
            Some(size) if size < self.max_size => Ok(()),
            Some(_) => self.rotate(id, files).await,
        }
    }

    async fn rotate(&self, id: &str, files: LogFiles) -> Result<(), RotateError> {
        let now = Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let name = format!("{}.{now}", files.base());
        if is_taken(&files, &name)? {
            // Rotated within this very second: the next look finds another name.
            return Ok(());
        }
        let max_files = self.max_files;
        let made_room = tokio::task::spawn_blocking(move || make_room(files, max_files));
        let joined = made_room.await.map_err(io::Error::other);
        let files = joined.map_err(RotateError::Look)??;
        if let Err(source) = files.rename(files.base(), &name) {
            return Err(RotateError::Rename { name, source });
        }
        let reopened = self.reopen(id).await;
        if reopened.is_err()
            && let Err(error) = files.rename(&name, files.base())
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            // The next look repairs it; what the runtime writes is in the renamed file.
            tracing::debug!(%error, name, "the log keeps its new name");
        }
        reopened
    }

    async fn reopen(&self, id: &str) -> Result<(), RotateError> {
        let answer = self.cri.reopen_container_log(id).await;
        answer.map_err(RotateError::Reopen)
    }
}

/// Whether a rotated file has this name, compressed or not: of two the plain one would
/// count as the compressed one's leftover.
fn is_taken(files: &LogFiles, name: &str) -> Result<bool, RotateError> {
    let names = files.rotated().map_err(RotateError::Look)?;
    Ok(names.iter().any(|taken| taken.starts_with(name)))
}

/// Removes and compresses older files, so that one more may come.
fn make_room(files: LogFiles, max_files: usize) -> Result<LogFiles, RotateError> {
    let names = files.rotated().map_err(RotateError::Look)?;
    let plan = compute_plan(&names, max_files);
    for name in plan.remove {
        if let Err(source) = files.remove(&name) {
            return Err(RotateError::Remove { name, source });
        }
    }
    for name in plan.compress {
        if let Err(source) = files.compress(&name) {
            return Err(RotateError::Compress { name, source });
        }
    }
    Ok(files)
}
