//! The static pod directory: watched by inotify, read again every 20 s in any case.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{Origin, SourceEvent, manifest};
use crate::chain::chain;

/// fileCheckFrequency.
const RESCAN: Duration = Duration::from_secs(20);
/// Quiet time after a change: an editor writes in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Follows `dir` for as long as somebody listens.
pub async fn run(dir: PathBuf, node: String, events: mpsc::UnboundedSender<SourceEvent>) {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // A full channel already says that something changed.
        let _ = changed.try_send(());
    })
    .inspect_err(|error| tracing::warn!(%error, "no inotify: static pods are read every 20 s"))
    .ok();
    let mut watching = false;
    loop {
        if !watching && let Some(watcher) = &mut watcher {
            watching = watcher.watch(&dir, RecursiveMode::NonRecursive).is_ok();
        }
        let snapshot = SourceEvent::Snapshot {
            origin: Origin::File,
            pods: scan(&dir, &node),
        };
        if events.send(snapshot).is_err() {
            return;
        }
        tokio::select! {
            // Cancel-safe: a notice left in the channel is taken the next time.
            Some(()) = changes.recv() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(RESCAN) => {}
        }
    }
}

/// Every pod in `dir`; a file that is no pod is reported in the log and passed over.
fn scan(dir: &Path, node: &str) -> Vec<Pod> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot read static pods");
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| is_manifest(p))
        .collect();
    paths.sort();
    let mut pods: Vec<Pod> = Vec::new();
    for path in paths {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a static pod");
                continue;
            }
        };
        match manifest::parse(&text, &path, node) {
            Ok(pod)
                if pods
                    .iter()
                    .any(|p| crate::pod::key(p) == crate::pod::key(&pod)) =>
            {
                let key = crate::pod::key(&pod);
                tracing::warn!(path = %path.display(), key, "a second static pod of this name");
            }
            Ok(pod) => pods.push(pod),
            Err(error) => {
                tracing::warn!(path = %path.display(), error = chain(&error), "no static pod");
            }
        }
    }
    pods
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let hidden = name.is_none_or(|n| n.starts_with('.'));
    let extension = path.extension().and_then(|e| e.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run(dir.path().to_path_buf(), "n1".into(), sender));
        let mut next = async || match events.recv().await.unwrap() {
            SourceEvent::Snapshot { pods, .. } => pods.len(),
            _ => panic!("a snapshot is expected"),
        };
        assert_eq!(next().await, 0);
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}, \
                   spec: {containers: [{name: c, image: i}]}}";
        std::fs::write(dir.path().join("broken.yaml"), "{").unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), pod).unwrap();
        std::fs::write(dir.path().join("a.yaml"), pod).unwrap();
        while next().await != 1 {}
        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        while next().await != 0 {}
    }
}
