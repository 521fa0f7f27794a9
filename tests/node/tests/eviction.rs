//! A node that runs short: who goes, who stays, who is refused.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_kubelet::Config;
use berth_kubelet::eviction::threshold::{Least, Signal, Threshold};
use berth_test_node::api::ApiServer;
use berth_test_node::{Kubelet, test_kubelet, until};
use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-node");
const NOTHING: Value = Value::Null;
const MIB: u64 = 1 << 20;

/// The kubelet's directory on a file system of its own; unmounted when dropped.
struct OwnDisk(PathBuf);

impl OwnDisk {
    fn mount(dir: PathBuf, size: &str) -> Result<OwnDisk> {
        std::fs::create_dir_all(&dir)?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&dir);
        ensure!(mount.status()?.success(), "cannot mount a tmpfs");
        Ok(OwnDisk(dir))
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        // A mount that stays is found by the leak check.
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

async fn api_server(kubelet: &mut Kubelet, thresholds: Vec<Threshold>) -> Result<ApiServer> {
    let dir = kubelet.node.dir().join("server");
    let api = ApiServer::start(&dir, kubelet.node.image()).await?;
    let kubeconfig = api.kubeconfig();
    let tune = move |config: &mut Config| {
        config.kubeconfig = Some(kubeconfig.clone());
        config.eviction.hard.clone_from(&thresholds);
        config.eviction.interval = Duration::from_millis(200);
    };
    kubelet.restart_with(tune).await?;
    until("the node is Ready", async || {
        Ok(api.node_condition("Ready").await? == "True")
    })
    .await?;
    Ok(api)
}

/// Writes so many MiB to the pod's volume, with nothing but a shell.
fn writes(mib: u64) -> String {
    format!(
        "x=x; while [ ${{#x}} -lt {MIB} ]; do x=$x$x; done; \
         i=0; while [ $i -lt {mib} ]; do echo $x; i=$((i+1)); done > /v/file; sleep 1000"
    )
}

fn volume() -> Value {
    json!({"volumes": [{"name": "v", "emptyDir": {}}]})
}

fn mounted(requests: &Value) -> Value {
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    json!({"volumeMounts": mounts, "resources": {"requests": requests}})
}

#[test]
fn root_the_pod_furthest_above_its_request_is_evicted_when_the_disk_fills() {
    test_kubelet("kevi", 60, SERVER, async |mut kubelet| {
        kubelet.stop().await;
        let disk = OwnDisk::mount(kubelet.node.dir().join("kubelet"), "size=256m")?;
        let threshold = Threshold {
            signal: Signal::NodeFsAvailable,
            least: Least::Amount(160 * MIB),
        };
        let api = api_server(&mut kubelet, vec![threshold]).await?;
        let asked = mounted(&json!({"ephemeral-storage": "40Mi"}));
        api.create("asked", &writes(20), &asked, &volume()).await?;
        let unasked = mounted(&json!({}));
        api.create("small", &writes(5), &unasked, &volume()).await?;
        let mut critical = volume();
        critical["priorityClassName"] = "system-node-critical".into();
        api.create("critical", &writes(40), &unasked, &critical)
            .await?;
        for name in ["asked", "small", "critical"] {
            api.await_phase(name, "Running").await?;
        }
        // 65 MiB are used and 191 left; now the disk fills.
        api.create("big", &writes(60), &unasked, &volume()).await?;
        let status = api.await_phase("big", "Failed").await?;
        ensure!(status.reason.as_deref() == Some("Evicted"), "{status:?}");
        let message = status.message.unwrap_or_default();
        let words = "The node was low on resource: ephemeral-storage. Threshold quantity: 160Mi, \
                     available: ";
        ensure!(message.starts_with(words), "{message}");
        let conditions = status.conditions.unwrap_or_default();
        let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget");
        let target = target.context("it tells that it was disrupted")?;
        ensure!(target.reason.as_deref() == Some("TerminationByKubelet"));
        let volume = disk
            .0
            .join("pods")
            .join(api.uid("big").await?)
            .join("volumes");
        until("the volume is gone", async || {
            Ok(!volume.join("kubernetes.io~empty-dir/v/file").exists())
        })
        .await?;
        stopped(&kubelet, "big").await?;
        refusals(&api).await?;
        for name in ["asked", "small", "critical"] {
            let phase = api.status(name).await?.phase;
            ensure!(phase.as_deref() == Some("Running"), "{name} is {phase:?}");
        }
        api.delete(&["asked", "small", "critical", "big", "late", "needed"])
            .await?;
        kubelet.stop().await;
        drop(disk);
        kubelet.finish().await
    });
}

/// What the node takes while its condition stands, though the disk has room again.
async fn refusals(api: &ApiServer) -> Result<()> {
    until("DiskPressure is told", async || {
        Ok(api.node_condition("DiskPressure").await? == "True")
    })
    .await?;
    api.create("late", "sleep 1000", &NOTHING, &NOTHING).await?;
    let late = api.await_phase("late", "Failed").await?;
    let expected = "Pod was rejected: The node had condition: [DiskPressure]. ";
    ensure!(late.reason.as_deref() == Some("Evicted"), "{late:?}");
    ensure!(late.message.as_deref() == Some(expected), "{late:?}");
    let critical = json!({"priorityClassName": "system-cluster-critical"});
    api.create("needed", "sleep 1000", &NOTHING, &critical)
        .await?;
    api.await_phase("needed", "Running").await?;
    Ok(())
}

/// Nothing of the pod runs any more.
async fn stopped(kubelet: &Kubelet, name: &str) -> Result<()> {
    until("its containers have ended", async || {
        let containers = kubelet.cri.list_containers(Default::default()).await?;
        let label = "io.kubernetes.pod.name";
        let own = containers
            .iter()
            .filter(|c| c.labels.get(label).is_some_and(|n| n == name));
        Ok(own.into_iter().all(|c| c.state == 2))
    })
    .await
}

#[test]
fn root_a_node_short_of_processes_says_so_and_takes_no_pod() {
    test_kubelet("kpid", 61, SERVER, async |mut kubelet| {
        let threshold = Threshold {
            signal: Signal::PidAvailable,
            least: Least::Amount(1 << 40),
        };
        let api = api_server(&mut kubelet, vec![threshold]).await?;
        until("PIDPressure is told", async || {
            Ok(api.node_condition("PIDPressure").await? == "True")
        })
        .await?;
        ensure!(api.node_condition("MemoryPressure").await? == "False");
        api.create("late", "sleep 1000", &NOTHING, &NOTHING).await?;
        let late = api.await_phase("late", "Failed").await?;
        let expected = "Pod was rejected: The node had condition: [PIDPressure]. ";
        ensure!(late.message.as_deref() == Some(expected), "{late:?}");
        api.delete(&["late"]).await?;
        kubelet.finish().await
    });
}
