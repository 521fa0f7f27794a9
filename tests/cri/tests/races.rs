//! Calls that meet: whichever comes first, nothing runs unknown and nothing is left.

use std::time::Duration;

use anyhow::{Result, ensure};
use berth_proto::cri;
use berth_test_cri::client;
use berth_test_cri::node::{Pod, test_pod};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);
/// Head start of the first call, in milliseconds.
const DELAYS: [u64; 6] = [0, 1, 3, 6, 12, 25];

#[test]
fn root_a_start_and_a_removal_leave_no_container() {
    test_pod("rsta", 36, SERVER, async |mut pod| {
        let held = pod.node.effects();
        for delay in DELAYS {
            let main = client::container("main", &pod.image, &["sleep", "1000"]);
            let id = pod.client.create(&pod.id, &main, &pod.config).await?;
            let (mut starter, mut remover) = (pod.client.clone(), pod.client.clone());
            let (_, removed) = tokio::join!(starter.start(&id), after(delay, remover.remove(&id)));
            removed?;
            ensure!(
                pod.client.status(&id).await.is_err(),
                "{delay}: still known"
            );
            pod.node.expect_effects(&held)?;
        }
        pod.finish().await
    });
}

#[test]
fn root_a_start_and_a_stop_of_the_pod_end_what_was_started() {
    test_pod("rstp", 37, SERVER, async |mut pod| {
        let held = pod.node.effects();
        for delay in DELAYS {
            let (_, id, container) = other_pod(&mut pod).await?;
            let (mut starter, mut stopper) = (pod.client.clone(), pod.client.clone());
            let (started, stopped) = tokio::join!(
                starter.start(&container),
                after(delay, stopper.stop_pod(&id))
            );
            stopped?;
            let state = pod.client.status(&container).await?.state();
            if started.is_ok() {
                pod.client.await_exit(&container, WITHIN).await?;
            }
            ensure!(
                state != cri::ContainerState::ContainerRunning,
                "{delay}: it runs in a stopped pod"
            );
            pod.client.remove_pod(&id).await?;
            pod.node.expect_effects(&held)?;
        }
        pod.finish().await
    });
}

#[test]
fn root_a_creation_and_a_removal_of_the_pod_leave_no_container() {
    test_pod("rcre", 38, SERVER, async |mut pod| {
        let held = pod.node.effects();
        for delay in DELAYS {
            let (config, id, _) = other_pod(&mut pod).await?;
            let (mut creator, mut remover) = (pod.client.clone(), pod.client.clone());
            let late = client::container("late", &pod.image, &["sleep", "1000"]);
            let (_, removed) = tokio::join!(
                creator.create(&id, &late, &config),
                after(delay, remover.remove_pod(&id))
            );
            removed?;
            let request = cri::ListContainersRequest::default();
            let listed = pod.client.runtime.list_containers(request).await?;
            let listed = listed.into_inner().containers;
            ensure!(listed.is_empty(), "{delay}: {listed:?}");
            pod.node.expect_effects(&held)?;
        }
        pod.finish().await
    });
}

/// A pod beside the first with a created container.
async fn other_pod(pod: &mut Pod) -> Result<(cri::PodSandboxConfig, String, String)> {
    let config = client::pod("other", &pod.node.logs());
    let id = pod.client.run_pod(&config).await?;
    let main = client::container("main", &pod.image, &["sleep", "1000"]);
    let container = pod.client.create(&id, &main, &config).await?;
    Ok((config, id, container))
}

async fn after<T>(milliseconds: u64, call: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    call.await
}
