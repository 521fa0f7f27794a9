//! Limits of containers, where cgroup v2 enforces them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_proto::cri;
use berth_test_cri::node::{Pod, test_limited_pod};
use berth_test_harness::patient;

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);
const MIB: i64 = 1 << 20;

/// The script as container `name` with a limit of memory in bytes.
fn limited(pod: &Pod, name: &str, script: &str, memory: i64) -> cri::ContainerConfig {
    let mut config = pod.script(name, script);
    let resources = cri::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: memory,
        ..Default::default()
    };
    config.linux.get_or_insert_default().resources = Some(resources);
    config
}

/// What files of its cgroup hold, as the container sees them.
async fn inside(pod: &mut Pod, id: &str, files: &[&str]) -> Result<String> {
    let paths: Vec<String> = files
        .iter()
        .map(|file| format!("/sys/fs/cgroup/{file}"))
        .collect();
    let command: Vec<&str> = ["cat"]
        .into_iter()
        .chain(paths.iter().map(String::as_str))
        .collect();
    let output = pod.client.exec(id, &command, 0).await?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn root_a_container_out_of_memory_is_told_as_oom_killed() {
    test_limited_pod("oomk", 31, SERVER, async |mut pod| {
        let hungry = limited(&pod, "hungry", "a=x; while :; do a=$a$a; done", 32 * MIB);
        let id = pod.start(&hungry).await?;
        let ended = pod.client.await_exit(&id, patient(WITHIN)).await?;
        ensure!(
            (ended.exit_code, ended.reason.as_str()) == (137, "OOMKilled"),
            "{ended:?}"
        );
        let modest = limited(&pod, "modest", "kill -9 $$", 32 * MIB);
        let id = pod.start(&modest).await?;
        let ended = pod.client.await_exit(&id, patient(WITHIN)).await?;
        ensure!(
            (ended.exit_code, ended.reason.as_str()) == (137, "Error"),
            "{ended:?}"
        );
        pod.finish().await
    });
}

#[test]
fn root_updated_limits_hold_at_once_and_the_others_stay() {
    test_limited_pod("updt", 32, SERVER, async |mut pod| {
        let id = pod
            .start(&limited(&pod, "main", "exec sleep 1000", 64 * MIB))
            .await?;
        let files = ["memory.max", "cpu.max"];
        let seen = inside(&mut pod, &id, &files).await?;
        ensure!(seen == "67108864\nmax 100000\n", "{seen}");
        let update = cri::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 20_000,
            ..Default::default()
        };
        set(&mut pod, &id, update).await?;
        let update = cri::LinuxContainerResources {
            memory_limit_in_bytes: 96 * MIB,
            ..Default::default()
        };
        set(&mut pod, &id, update).await?;
        let seen = inside(&mut pod, &id, &files).await?;
        ensure!(seen == "100663296\n20000 100000\n", "{seen}");
        let status = pod.client.status(&id).await?;
        let told = status
            .resources
            .and_then(|r| r.linux)
            .context("no resources")?;
        ensure!(
            (told.memory_limit_in_bytes, told.cpu_quota) == (96 * MIB, 20_000),
            "{told:?}"
        );
        pod.finish().await
    });
}

async fn set(pod: &mut Pod, id: &str, linux: cri::LinuxContainerResources) -> Result<()> {
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(linux),
        ..Default::default()
    };
    pod.client
        .runtime
        .update_container_resources(request)
        .await?;
    Ok(())
}
