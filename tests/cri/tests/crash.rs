//! The server killed between any two effects of a call: after its next start the client's
//! retry succeeds, there is one instance, and nothing is left over.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_audit::Kind;
use berth_proto::cri;
use berth_test_cri::audit;
use berth_test_cri::client;
use berth_test_cri::node::{Pod, test_pod};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);

const PULL: [&str; 5] = [
    "pull: layer unpacked",
    "pull: layer kept",
    "pull: layers flushed",
    "pull: documents stored",
    "pull: image recorded",
];
const RUN_SANDBOX: [&str; 12] = [
    "run sandbox: name reserved",
    "run sandbox: start recorded",
    "run sandbox: files written",
    "run sandbox: shared memory mounted",
    "run sandbox: cgroup made",
    "run sandbox: monitor started",
    "run sandbox: namespaces made",
    "run sandbox: namespaces recorded",
    "run sandbox: attachment planned",
    "run sandbox: network attached",
    "run sandbox: addresses recorded",
    "run sandbox: made",
];
const CREATE_CONTAINER: [&str; 4] = [
    "create container: name reserved",
    "create container: configuration written",
    "create container: snapshot made",
    "create container: recorded",
];
const START_CONTAINER: [&str; 4] = [
    "start container: intent recorded",
    "start container: launched",
    "start container: audited",
    "start container: recorded",
];
/// With whether the container obeys when it is asked.
const STOP_CONTAINER: [(&str, bool); 3] = [
    ("stop container: asked", true),
    ("stop container: ended", true),
    ("stop container: killed", false),
];
const REMOVE_CONTAINER: [&str; 6] = [
    "remove container: ended",
    "remove container: forgotten by its monitor",
    "remove container: cgroup removed",
    "remove container: snapshot removed",
    "remove container: directory removed",
    "remove container: records removed",
];
const STOP_SANDBOX: [&str; 7] = [
    "stop sandbox: intent recorded",
    "stop sandbox: containers ended",
    "stop sandbox: monitor ended",
    "stop sandbox: network detached",
    "stop sandbox: cgroups removed",
    "stop sandbox: shared memory unmounted",
    "stop sandbox: end recorded",
];
const REMOVE_SANDBOX: [&str; 4] = [
    "remove sandbox: stopped",
    "remove sandbox: containers removed",
    "remove sandbox: directory removed",
    "remove sandbox: records removed",
];

/// Ends with code 3 when asked.
const OBEYS: &str = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
/// Ends only when killed.
const DEFIES: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn root_a_pull_is_repeated_after_every_crash() {
    test_pod("crpl", 26, SERVER, async |mut pod| {
        pod.client.remove_pod(&pod.id).await?;
        let layers = pod.node.dir().join("images/layers");
        let count = || std::fs::read_dir(&layers).map(Iterator::count);
        let before = count()?;
        let name = pod.node.image();
        for point in PULL {
            remove_image(&mut pod, &name).await?;
            die_at(&mut pod, point).await?;
            ensure!(pod.client.pull(&name).await.is_err(), "{point}");
            pod.client = pod.node.revive_server().await.context(point)?;
            let image = pod.client.pull(&name).await.context(point)?;
            ensure!(image == pod.image, "{point}: {image}");
            ensure!(count()? == before, "{point}: a layer is left over");
            let id = pod.client.run_pod(&pod.config).await?;
            let container = pod.script("main", "exit 4");
            let container = pod.client.run(&id, &container, &pod.config).await?;
            expect_exit(&mut pod, &container, 4).await.context(point)?;
            pod.client.remove_pod(&id).await?;
        }
        remove_image(&mut pod, &name).await?;
        ensure!(count()? == 1, "only the empty layer is left");
        pod.node.finish()
    });
}

#[test]
fn root_a_sandbox_is_run_once_whenever_the_server_dies() {
    bystander("crun", 27, async |pod, held| {
        for point in RUN_SANDBOX {
            die_at(pod, point).await?;
            let config = crashing(pod);
            ensure!(pod.client.run_pod(&config).await.is_err(), "{point}");
            pod.client = pod.node.revive_server().await.context(point)?;
            let id = pod.client.run_pod(&config).await.context(point)?;
            let found = sandboxes(pod).await?;
            ensure!(found.len() == 1 && found[0].id == id, "{point}: {found:?}");
            let status = pod.client.pod_status(&id).await?;
            ensure!(
                status.state() == cri::PodSandboxState::SandboxReady,
                "{point}: {status:?}"
            );
            let ip = status.network.context("no network")?.ip;
            ensure!(!ip.is_empty(), "{point}: no address");
            let container = pod.script("main", "exit 5");
            let container = pod.client.run(&id, &container, &config).await?;
            expect_exit(pod, &container, 5).await.context(point)?;
            pod.client.remove_pod(&id).await?;
            clean(pod, held).context(point)?;
        }
        Ok(())
    });
}

#[test]
fn root_a_container_is_created_and_started_once_whenever_the_server_dies() {
    bystander("crst", 28, async |pod, held| {
        for point in CREATE_CONTAINER.into_iter().chain(START_CONTAINER) {
            die_at(pod, point).await?;
            let config = crashing(pod);
            let id = pod.client.run_pod(&config).await?;
            let container = pod.script("main", OBEYS);
            let starts = START_CONTAINER.contains(&point);
            let created = pod.client.create(&id, &container, &config).await;
            if let (true, Ok(created)) = (starts, &created) {
                ensure!(pod.client.start(created).await.is_err(), "{point}");
            }
            ensure!(created.is_ok() == starts, "{point}: {created:?}");
            pod.client = pod.node.revive_server().await.context(point)?;
            let created = match created {
                Ok(created) => created,
                Err(_) => pod.client.create(&id, &container, &config).await?,
            };
            pod.client.start(&created).await.context(point)?;
            let found = containers(pod, &id).await?;
            ensure!(found.len() == 1, "{point}: {found:?}");
            let status = pod.client.status(&created).await?;
            ensure!(
                status.state() == cri::ContainerState::ContainerRunning,
                "{point}: {status:?}"
            );
            ready(pod, &created).await.context(point)?;
            audit::verify(&pod.node).context(point)?;
            let told = audit::entries_of(&pod.node, Kind::Start, &created)?;
            ensure!(told.len() == 1, "{point}: {told:?}");
            pod.client.stop(&created, 0).await?;
            expect_exit(pod, &created, 137).await.context(point)?;
            let log = std::fs::read_to_string(&status.log_path)?;
            ensure!(log.matches("ready").count() == 1, "{point}: {log}");
            pod.client.remove_pod(&id).await?;
            clean(pod, held).context(point)?;
        }
        Ok(())
    });
}

#[test]
fn root_a_container_is_stopped_and_removed_whenever_the_server_dies() {
    bystander("crsp", 29, async |pod, held| {
        for (point, obeys) in STOP_CONTAINER {
            die_at(pod, point).await?;
            let config = crashing(pod);
            let id = pod.client.run_pod(&config).await?;
            let container = pod.script("main", if obeys { OBEYS } else { DEFIES });
            let container = pod.client.run(&id, &container, &config).await?;
            ready(pod, &container).await?;
            ensure!(pod.client.stop(&container, 1).await.is_err(), "{point}");
            pod.client = pod.node.revive_server().await.context(point)?;
            pod.client.stop(&container, 1).await.context(point)?;
            let code = if obeys { 3 } else { 137 };
            expect_exit(pod, &container, code).await.context(point)?;
            pod.client.remove_pod(&id).await?;
            clean(pod, held).context(point)?;
        }
        for point in REMOVE_CONTAINER {
            die_at(pod, point).await?;
            let config = crashing(pod);
            let id = pod.client.run_pod(&config).await?;
            let container = pod.script("main", OBEYS);
            let container = pod.client.run(&id, &container, &config).await?;
            ensure!(pod.client.remove(&container).await.is_err(), "{point}");
            pod.client = pod.node.revive_server().await.context(point)?;
            pod.client.remove(&container).await.context(point)?;
            let found = containers(pod, &id).await?;
            ensure!(found.is_empty(), "{point}: {found:?}");
            pod.client.remove_pod(&id).await?;
            clean(pod, held).context(point)?;
        }
        Ok(())
    });
}

#[test]
fn root_a_sandbox_is_stopped_and_removed_whenever_the_server_dies() {
    bystander("crrm", 30, async |pod, held| {
        for point in STOP_SANDBOX.into_iter().chain(REMOVE_SANDBOX) {
            die_at(pod, point).await?;
            let config = crashing(pod);
            let id = pod.client.run_pod(&config).await?;
            let container = pod.script("main", OBEYS);
            let container = pod.client.run(&id, &container, &config).await?;
            let stops = STOP_SANDBOX.contains(&point);
            let called = if stops {
                pod.client.stop_pod(&id).await
            } else {
                pod.client.remove_pod(&id).await
            };
            ensure!(called.is_err(), "{point}");
            pod.client = pod.node.revive_server().await.context(point)?;
            if stops {
                pod.client.stop_pod(&id).await.context(point)?;
                let state = pod.client.pod_status(&id).await?.state();
                ensure!(
                    state == cri::PodSandboxState::SandboxNotready,
                    "{point}: {state:?}"
                );
                expect_exit(pod, &container, 137).await.context(point)?;
            }
            pod.client.remove_pod(&id).await.context(point)?;
            let found = sandboxes(pod).await?;
            ensure!(found.is_empty(), "{point}: {found:?}");
            clean(pod, held).context(point)?;
        }
        Ok(())
    });
}

/// Runs `body` beside a pod with a container, which no crash may touch.
fn bystander(
    tag: &str,
    subnet: u8,
    body: impl AsyncFnOnce(&mut Pod, &BTreeSet<String>) -> Result<()>,
) {
    test_pod(tag, subnet, SERVER, async |mut pod| {
        let main = pod.start_sleeping().await?;
        let before = pod.client.status(&main).await?;
        let held = pod.node.effects();
        body(&mut pod, &held).await?;
        let after = pod.client.status(&main).await?;
        ensure!(after == before, "the bystander changed: {after:?}");
        pod.finish().await
    });
}

/// Restarts the server; it dies when it comes to `point`.
async fn die_at(pod: &mut Pod, point: &str) -> Result<()> {
    pod.node.kill_server()?;
    pod.client = pod.node.start_server_dying_at(point).await?;
    Ok(())
}

/// The request of the pod that is there when the server dies.
fn crashing(pod: &Pod) -> cri::PodSandboxConfig {
    client::pod("crash", &pod.node.logs())
}

/// Fails when the host has more or less than `held`, what the bystander has.
fn clean(pod: &Pod, held: &BTreeSet<String>) -> Result<()> {
    std::fs::remove_dir_all(crashing(pod).log_directory)?;
    pod.node.expect_effects(held)
}

async fn expect_exit(pod: &mut Pod, container: &str, code: i32) -> Result<()> {
    let ended = pod.client.await_exit(container, WITHIN).await?;
    ensure!(ended.exit_code == code, "{ended:?}");
    Ok(())
}

/// Waits until the container has said that it is ready.
async fn ready(pod: &mut Pod, container: &str) -> Result<()> {
    let log = pod.client.status(container).await?.log_path;
    let start = std::time::Instant::now();
    while !std::fs::read_to_string(&log)?.contains("ready") {
        ensure!(start.elapsed() < WITHIN, "it is not ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// All sandboxes but the bystander's.
async fn sandboxes(pod: &mut Pod) -> Result<Vec<cri::PodSandbox>> {
    let request = cri::ListPodSandboxRequest::default();
    let listed = pod.client.runtime.list_pod_sandbox(request).await?;
    let mut found = listed.into_inner().items;
    found.retain(|sandbox| sandbox.id != pod.id);
    Ok(found)
}

async fn containers(pod: &mut Pod, sandbox: &str) -> Result<Vec<cri::Container>> {
    let request = cri::ListContainersRequest::default();
    let listed = pod.client.runtime.list_containers(request).await?;
    let mut found = listed.into_inner().containers;
    found.retain(|container| container.pod_sandbox_id == sandbox);
    Ok(found)
}

async fn remove_image(pod: &mut Pod, name: &str) -> Result<()> {
    let image = Some(client::image(name));
    let request = cri::RemoveImageRequest { image };
    pod.client.images.remove_image(request).await?;
    Ok(())
}
