//! Static pods: from a file to a process, and back to nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use berth_test_node::{ended, runs, test_kubelet};
use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-node");
const NOTHING: Value = Value::Null;

#[test]
fn root_a_file_becomes_a_container_and_its_removal_ends_it() {
    test_kubelet("kfil", 51, SERVER, async |kubelet| {
        let script = "echo $(HELLO); sleep 1000";
        let env = json!({"env": [{"name": "HELLO", "value": "hello"}]});
        kubelet.put("web", script, &env, &NOTHING)?;
        let main = kubelet.await_main("web", runs(0)).await?;
        let mut log = String::new();
        while !log.contains("stdout F hello") {
            tokio::time::sleep(Duration::from_millis(20)).await;
            log = std::fs::read_to_string(&main.log_path).unwrap_or_default();
        }
        kubelet.remove("web")?;
        kubelet.await_gone("web").await?;
        ensure!(!std::path::Path::new(&main.log_path).exists(), "its log");
        let pods = kubelet.node.dir().join("kubelet/pods");
        ensure!(std::fs::read_dir(pods)?.next().is_none(), "its directory");
        kubelet.finish().await
    });
}

#[test]
fn root_an_exit_is_followed_by_a_restart_by_policy() {
    test_kubelet("kres", 52, SERVER, async |kubelet| {
        kubelet.put("always", "sleep 0.3; exit 0", &NOTHING, &NOTHING)?;
        let never = json!({"restartPolicy": "Never"});
        kubelet.put("never", "exit 7", &NOTHING, &never)?;
        kubelet.await_main("always", |c| c.attempt == 1).await?;
        kubelet.await_main("never", ended(7)).await?;
        // The sandbox of a pod that is done is stopped, its record kept.
        while kubelet.runtime("never").await?.ready_sandbox().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ensure!(kubelet.runtime("never").await?.containers.len() == 1);
        done(kubelet, &["always", "never"]).await
    });
}

#[test]
fn root_restarts_of_kubelet_and_server_touch_no_pod() {
    test_kubelet("kado", 53, SERVER, async |mut kubelet| {
        kubelet.put("stays", "sleep 1000", &NOTHING, &NOTHING)?;
        let never = json!({"restartPolicy": "Never"});
        kubelet.put("once", "exit 0", &NOTHING, &never)?;
        let before = kubelet.await_main("stays", runs(0)).await?;
        let once = kubelet.await_main("once", ended(0)).await?;
        kubelet.stop().await;
        kubelet.node.kill_server()?;
        kubelet.node.start_server().await?;
        kubelet.start()?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = kubelet.await_main("stays", runs(0)).await?;
        ensure!(after.id == before.id, "the same container");
        let completed = kubelet.runtime("once").await?;
        ensure!(completed.containers.len() == 1, "{completed:?}");
        ensure!(
            completed.containers[0].id == once.id,
            "it did not run again"
        );
        done(kubelet, &["stays", "once"]).await
    });
}

#[test]
fn root_a_failing_liveness_probe_restarts() {
    test_kubelet("kliv", 54, SERVER, async |kubelet| {
        let probe = json!({"livenessProbe": {
            "exec": {"command": ["ls", "/tmp/alive"]},
            "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1,
        }});
        kubelet.put("sick", "sleep 1000", &probe, &NOTHING)?;
        kubelet.await_main("sick", runs(0)).await?;
        kubelet.await_main("sick", runs(1)).await?;
        done(kubelet, &["sick"]).await
    });
}

#[test]
fn root_init_containers_run_first_and_share_volumes() {
    test_kubelet("kini", 55, SERVER, async |kubelet| {
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let init = json!({
            "initContainers": [{
                "name": "init", "image": kubelet.node.image(),
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "echo ready > /v/file"],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "restartPolicy": "Never",
        });
        kubelet.put("two", "test \"$(cat /v/file)\" = ready", &mounts, &init)?;
        kubelet.await_main("two", ended(0)).await?;
        done(kubelet, &["two"]).await
    });
}

#[test]
fn root_a_refused_field_starts_nothing() {
    test_kubelet("kref", 56, SERVER, async |kubelet| {
        let refused = json!({"hostUsers": false});
        kubelet.put("refused", "sleep 1000", &NOTHING, &refused)?;
        kubelet.put("taken", "sleep 1000", &NOTHING, &NOTHING)?;
        kubelet.await_main("taken", runs(0)).await?;
        let runtime = kubelet.runtime("refused").await?;
        ensure!(runtime.sandboxes.is_empty(), "{runtime:?}");
        done(kubelet, &["taken"]).await
    });
}

/// Removes the pods' files, waits for their end and looks for leaks.
async fn done(kubelet: berth_test_node::Kubelet, pods: &[&str]) -> Result<()> {
    for name in pods {
        kubelet.remove(name)?;
    }
    for name in pods {
        kubelet.await_gone(name).await?;
    }
    kubelet.finish().await
}
