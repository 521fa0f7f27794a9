//! Limits of pods, where cgroup v2 enforces them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use berth_test_node::{Kubelet, ended, runs, test_limited_kubelet};
use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-node");
const NOTHING: Value = Value::Null;

/// `kubepods` of this kubelet, which is made below a group of its own.
fn kubepods(kubelet: &Kubelet) -> Result<PathBuf> {
    let root = kubelet.node.dir().file_name().context("no name")?;
    Ok(PathBuf::from("/sys/fs/cgroup").join(root).join("kubepods"))
}

/// The lines of files of the only pod's cgroup directly below `class`.
fn of_the_pod(class: &std::path::Path, files: &[&str]) -> Result<Vec<String>> {
    let mut pods = std::fs::read_dir(class)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("pod"));
    let pod = pods.next().context("no pod")?.path();
    ensure!(pods.next().is_none(), "two pods in {}", class.display());
    let read = |file: &&str| Ok(std::fs::read_to_string(pod.join(file))?.trim().to_owned());
    files.iter().map(read).collect()
}

#[test]
fn root_each_class_has_its_place_and_its_limits() {
    test_limited_kubelet("kqos", 61, SERVER, async |kubelet| {
        let limits = json!({"cpu": "250m", "memory": "64Mi"});
        let resources = json!({"resources": {"limits": limits}});
        kubelet.put("guaranteed", "sleep 1000", &resources, &NOTHING)?;
        let resources = json!({"resources": {"requests": {"cpu": "500m"}}});
        kubelet.put("burstable", "sleep 1000", &resources, &NOTHING)?;
        kubelet.put("best-effort", "sleep 1000", &NOTHING, &NOTHING)?;
        let pods = ["guaranteed", "burstable", "best-effort"];
        for name in pods {
            kubelet.await_main(name, runs(0)).await?;
        }
        let kubepods = kubepods(&kubelet)?;
        let files = ["memory.max", "cpu.max", "cpu.weight"];
        for (class, expected) in [
            ("", ["67108864", "25000 100000", "35"]),
            ("burstable", ["max", "max 100000", "59"]),
            ("besteffort", ["max", "max 100000", "1"]),
        ] {
            let seen = of_the_pod(&kubepods.join(class), &files)?;
            ensure!(seen == expected, "{class}: {seen:?}");
        }
        done(kubelet, &pods).await
    });
}

#[test]
fn root_a_container_out_of_memory_is_told_as_oom_killed() {
    test_limited_kubelet("koom", 62, SERVER, async |kubelet| {
        let resources = json!({"resources": {"limits": {"memory": "32Mi"}}});
        let never = json!({"restartPolicy": "Never"});
        let script = "a=x; while :; do a=$a$a; done";
        kubelet.put("hungry", script, &resources, &never)?;
        let main = kubelet.await_main("hungry", ended(137)).await?;
        ensure!(main.reason == "OOMKilled", "{main:?}");
        done(kubelet, &["hungry"]).await
    });
}

/// Removes the pods' files, waits for their end and looks for leaks.
async fn done(kubelet: Kubelet, pods: &[&str]) -> Result<()> {
    for name in pods {
        kubelet.remove(name)?;
    }
    for name in pods {
        kubelet.await_gone(name).await?;
    }
    kubelet.finish().await
}
