//! The static pod directory: watched by inotify, read again every 20 s in any case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{Origin, SourceEvent, manifest};
use crate::chain::chain;
use crate::pod::key;

/// fileCheckFrequency.
const RESCAN: Duration = Duration::from_secs(20);
/// Quiet time after a change: an editor writes in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Follows `dir` for as long as somebody listens.
pub async fn run(dir: PathBuf, node: String, events: mpsc::UnboundedSender<SourceEvent>) {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event| {
        if is_change(&event) {
            // A full channel already says that something changed.
            let _ = changed.try_send(());
        }
    })
    .inspect_err(|error| tracing::warn!(%error, "no inotify: static pods are read every 20 s"))
    .ok();
    let mut watching = false;
    let mut reported = Reported::new();
    loop {
        if !watching && let Some(watcher) = &mut watcher {
            watching = watcher.watch(&dir, RecursiveMode::NonRecursive).is_ok();
        }
        let snapshot = SourceEvent::Snapshot {
            origin: Origin::File,
            pods: scan(&dir, &node, &mut reported),
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

/// Whether the directory may hold something else now. Our own reading is no change.
fn is_change(event: &notify::Result<notify::Event>) -> bool {
    use notify::event::{AccessKind, AccessMode};
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        },
        // What was missed is not known.
        Err(_) => true,
    }
}

/// What was last said of a path, so that it is said once.
type Reported = BTreeMap<PathBuf, String>;

/// Every pod in `dir`; a file that is no pod is reported in the log and passed over.
fn scan(dir: &Path, node: &str, reported: &mut Reported) -> Vec<Pod> {
    let mut wrong = Reported::new();
    let mut pods: Vec<Pod> = Vec::new();
    for path in manifests(dir, &mut wrong) {
        match read(&path, node) {
            Ok(pod) if pods.iter().any(|held| key(held) == key(&pod)) => {
                wrong.insert(path, format!("a second static pod `{}`", key(&pod)));
            }
            Ok(pod) => pods.push(pod),
            Err(reason) => {
                wrong.insert(path, reason);
            }
        }
    }
    for (path, reason) in &wrong {
        if reported.get(path) != Some(reason) {
            tracing::warn!(path = %path.display(), error = reason, "no static pod");
        }
    }
    *reported = wrong;
    pods
}

/// The files that may be pods, in the order of their names.
fn manifests(dir: &Path, wrong: &mut Reported) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            wrong.insert(dir.to_owned(), format!("cannot be listed: {error}"));
            return Vec::new();
        }
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths.filter(|path| is_manifest(path)).collect();
    paths.sort();
    paths
}

fn read(path: &Path, node: &str) -> Result<Pod, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    manifest::parse(&text, path, node).map_err(|error| chain(&error))
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

    #[test]
    fn reading_is_no_change() {
        use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};
        let change = |kind| is_change(&Ok(notify::Event::new(kind)));
        assert!(!change(EventKind::Access(AccessKind::Open(
            AccessMode::Any
        ))));
        assert!(!change(EventKind::Access(AccessKind::Close(
            AccessMode::Read
        ))));
        assert!(change(EventKind::Access(AccessKind::Close(
            AccessMode::Write
        ))));
        assert!(change(EventKind::Create(CreateKind::File)));
        assert!(change(EventKind::Modify(ModifyKind::Any)));
        assert!(change(EventKind::Remove(RemoveKind::File)));
    }

    #[tokio::test]
    async fn a_directory_at_rest_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}, \
                   spec: {containers: [{name: c, image: i}]}}";
        std::fs::write(dir.path().join("a.yaml"), pod).unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run(dir.path().to_path_buf(), "n1".into(), sender));
        events.recv().await.unwrap();
        let again = tokio::time::timeout(SETTLE * 5, events.recv()).await;
        assert!(again.is_err(), "its own reading woke it");
    }
}
