//! What is left of pods that nobody wants: sandboxes and containers, cgroups, directories.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::chain::chain;
use crate::config::Config;
use crate::cri::CriError;
use crate::pod::PodUid;
use crate::pod::execute::Executor;
use crate::pod::runtime::{
    ANNOTATION_GRACE, LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID,
};

/// Looks for orphans in the background and hands runtime ones back to the sync loop.
#[derive(Debug)]
pub struct Orphans {
    executor: Executor,
    busy: Arc<AtomicBool>,
    found: mpsc::UnboundedSender<Pod>,
    tasks: JoinSet<()>,
}

impl Orphans {
    /// Pods that only the runtime knows are sent to `found`.
    #[must_use]
    pub fn new(executor: Executor, found: mpsc::UnboundedSender<Pod>) -> Orphans {
        Orphans {
            executor,
            busy: Arc::default(),
            found,
            tasks: JoinSet::new(),
        }
    }

    /// Starts one look, unless one is under way. `working` are the pods with a worker.
    pub fn look(&mut self, working: HashSet<PodUid>) {
        while self.tasks.try_join_next().is_some() {}
        if self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (executor, busy) = (self.executor.clone(), self.busy.clone());
        let found = self.found.clone();
        self.tasks.spawn(async move {
            match runtime_pods(&executor).await {
                Ok(pods) => {
                    let present: HashSet<_> = pods.keys().cloned().collect();
                    for (uid, pod) in pods {
                        if !working.contains(&uid) && found.send(pod).is_err() {
                            break;
                        }
                    }
                    clean(&executor, &working, &present).await;
                }
                Err(error) => tracing::debug!(error = chain(&error), "cannot look for orphans"),
            }
            busy.store(false, Ordering::Release);
        });
    }
}

/// Every pod the runtime has anything of, as far as it can be told from labels.
async fn runtime_pods(executor: &Executor) -> Result<HashMap<PodUid, Pod>, CriError> {
    let mut pods = HashMap::new();
    for sandbox in executor.cri.list_pod_sandboxes(HashMap::new()).await? {
        // A sandbox without our label was made by somebody else (crictl): not ours.
        let Some(uid) = sandbox.labels.get(LABEL_POD_UID).cloned() else {
            continue;
        };
        let pod = pods
            .entry(PodUid::from(uid.clone()))
            .or_insert_with(|| bare_pod(&sandbox.labels, uid));
        pod.spec.get_or_insert_default();
    }
    for container in executor.cri.list_containers(HashMap::new()).await? {
        let labels = &container.labels;
        let Some(uid) = labels.get(LABEL_POD_UID).cloned() else {
            continue;
        };
        let pod = pods
            .entry(PodUid::from(uid.clone()))
            .or_insert_with(|| bare_pod(labels, uid));
        let spec = pod.spec.get_or_insert_default();
        let grace = container.annotations.get(ANNOTATION_GRACE);
        spec.termination_grace_period_seconds = grace.and_then(|g| g.parse().ok());
        let name = labels
            .get(LABEL_CONTAINER_NAME)
            .cloned()
            .unwrap_or_default();
        spec.containers.push(Container {
            name,
            ..Container::default()
        });
    }
    Ok(pods)
}

fn bare_pod(labels: &HashMap<String, String>, uid: String) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: labels.get(LABEL_POD_NAME).cloned(),
            namespace: labels.get(LABEL_POD_NAMESPACE).cloned(),
            uid: Some(uid),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: None,
    }
}

/// Directories and cgroups of pods that neither run nor have a worker.
async fn clean(executor: &Executor, working: &HashSet<PodUid>, present: &HashSet<PodUid>) {
    let unknown = |uid: &PodUid| !working.contains(uid) && !present.contains(uid);
    for uid in executor.cgroups.present().into_iter().filter(unknown) {
        if let Err(error) = executor.cgroups.remove(&uid).await {
            tracing::warn!(pod = %uid, error = chain(&error), "cannot remove an orphaned cgroup");
        }
    }
    let dirs = std::fs::read_dir(executor.config.root_dir.join("pods"));
    for entry in dirs.into_iter().flatten().flatten() {
        let uid = PodUid::from(entry.file_name().to_string_lossy().into_owned());
        if !unknown(&uid) {
            continue;
        }
        if let Err(error) = executor.volumes.teardown(&uid).await {
            tracing::warn!(pod = %uid, error = chain(&error), "cannot remove orphaned volumes");
            continue;
        }
        if let Err((path, error)) = remove_files(&executor.config, &uid) {
            tracing::warn!(pod = %uid, path = %path.display(), %error, "cannot remove what an orphan left");
        }
    }
}

/// Removes the logs and then the directory of a pod of which only the identifier is known.
/// A pod that has a directory here was ours, so its logs are.
pub fn remove_files(config: &Config, uid: &PodUid) -> Result<(), (PathBuf, std::io::Error)> {
    let suffix = format!("_{uid}");
    let logs = std::fs::read_dir(&config.pod_logs_dir);
    let logs = logs.into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = logs
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))
        .map(|entry| entry.path())
        .collect();
    paths.push(config.pod_dir(uid.as_str()));
    for path in paths {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err((path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn the_logs_of_a_pod_go_with_its_directory_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let raw = RawConfig {
            node_name: Some("n1".into()),
            root_dir: Some(dir.path().join("kubelet")),
            pod_logs_dir: Some(dir.path().join("logs")),
            ..RawConfig::default()
        };
        let config = Config::resolve(raw).unwrap();
        let make = |name: &str| {
            let path = config.pod_logs_dir.join(name).join("main");
            std::fs::create_dir_all(path).unwrap();
        };
        make("default_web_u1");
        make("default_web_u2");
        std::fs::create_dir_all(config.pod_dir("u1")).unwrap();
        remove_files(&config, &PodUid::from("u1".to_owned())).unwrap();
        assert!(!config.pod_dir("u1").exists());
        assert!(!config.pod_logs_dir.join("default_web_u1").exists());
        assert!(config.pod_logs_dir.join("default_web_u2").exists());
    }
}
