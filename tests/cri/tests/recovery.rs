//! Servers and monitors that die, and what the next server makes of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_proto::cri;
use berth_test_cri::client;
use berth_test_cri::node::{Node, test_pod};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn root_pods_outlive_the_server() {
    test_pod("adop", 21, SERVER, async |mut pod| {
        let script = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done";
        let main = pod.start(&pod.script("main", script)).await?;
        let short = pod.start(&pod.script("short", "sleep 1; exit 5")).await?;
        let before = pod.client.status(&main).await?;
        let sandbox = pod.client.pod_status(&pod.id).await?;

        pod.node.kill_server()?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let unattended = pod.log("main").lines().count();
        ensure!(unattended > 5, "it logs on without a server: {unattended}");
        pod.client = pod.node.start_server().await?;
        ensure!(pod.client.status(&main).await? == before, "nothing changed");
        ensure!(
            pod.client.pod_status(&pod.id).await? == sandbox,
            "nothing changed"
        );
        let ended = pod.client.await_exit(&short, WITHIN).await?;
        ensure!(
            ended.exit_code == 5,
            "the exit nobody watched is known: {ended:?}"
        );
        ensure!(pod.client.exec(&main, &["true"], 5).await?.exit_code == 0);
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(pod.log("main").lines().count() > unattended);
        pod.finish().await
    });
}

#[test]
fn root_a_lost_monitor_ends_its_pod_once() {
    test_pod("lost", 22, SERVER, async |mut pod| {
        let main = pod.start_sleeping().await?;
        let dir = pod.node.dir().join("state/pods").join(&pod.id);
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("monitor.json"))?)?;
        let init = format!("/proc/{}/status", state["containers"][0]["pid"]);
        ensure!(std::fs::exists(&init)?, "{state}");
        let events = cri::GetEventsRequest::default();
        let events = pod.client.runtime.get_container_events(events).await?;
        let mut events = events.into_inner();
        kill_monitor_of(&dir)?;
        let ended = pod.client.await_exit(&main, WITHIN).await?;
        ensure!(
            (ended.exit_code, ended.reason.as_str()) == (255, "MonitorLost"),
            "{ended:?}"
        );
        // At most as a zombie: its new parent may not have looked after it yet.
        let status = std::fs::read_to_string(&init).unwrap_or_default();
        let gone = status.is_empty() || status.contains("State:\tZ");
        ensure!(
            gone,
            "it is told as ended, and may be started anew: {status}"
        );
        let stopped = cri::ContainerEventType::ContainerStoppedEvent;
        for expected in [&main, &pod.id] {
            let event = tokio::time::timeout(WITHIN, async {
                loop {
                    match events.message().await? {
                        Some(event) if event.container_event_type() != stopped => {}
                        event => return anyhow::Ok(event.context("no more events")?),
                    }
                }
            });
            let event = event.await??;
            ensure!(event.container_id == *expected, "{event:?}");
        }
        let start = std::time::Instant::now();
        while pod.client.pod_status(&pod.id).await?.state() == cri::PodSandboxState::SandboxReady {
            ensure!(start.elapsed() < WITHIN, "the sandbox still is ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut next = pod.config.clone();
        next.metadata.as_mut().context("no metadata")?.attempt = 1;
        let next = pod.client.run_pod(&next).await?;
        pod.client.remove_pod(&next).await?;
        pod.finish().await
    });
}

/// What `cargo xtask test root` names the last release's monitor in.
const FORMER: &str = "BERTH_FORMER_MONITOR";

#[test]
fn root_pods_of_the_former_releases_monitor_are_served_as_ever() {
    let Some(former) = std::env::var_os(FORMER) else {
        println!("skipped: no release yet");
        return;
    };
    test_pod("form", 42, SERVER, async |mut pod| {
        pod.client.remove_pod(&pod.id).await?;
        pod.node.end_server().await?;
        let file = pod.node.dir().join("config.toml");
        let todays = std::fs::read_to_string(&file)?;
        let path = todays
            .lines()
            .find(|line| line.starts_with("monitor_path"))
            .context("no monitor in the configuration")?;
        let formers = format!("monitor_path = '{}'", former.display());
        std::fs::write(&file, todays.replace(path, &formers))?;
        pod.client = pod.node.start_server().await?;
        pod.id = pod.client.run_pod(&pod.config).await?;
        let main = pod
            .start(&pod.script("main", "echo begun; exec sleep 1000"))
            .await?;
        let short = pod.start(&pod.script("short", "sleep 1; exit 5")).await?;
        let before = pod.client.status(&main).await?;

        pod.node.end_server().await?;
        std::fs::write(&file, todays)?;
        pod.client = pod.node.start_server().await?;
        ensure!(pod.client.status(&main).await? == before, "nothing changed");
        ensure!(pod.client.await_exit(&short, WITHIN).await?.exit_code == 5);
        let ran = pod.client.exec(&main, &["echo", "inside"], 5).await?;
        ensure!(ran.stdout == b"inside\n", "{ran:?}");
        let late = pod.start(&pod.script("late", "exit 3")).await?;
        ensure!(pod.client.await_exit(&late, WITHIN).await?.exit_code == 3);
        ensure!(pod.log("main").contains(" stdout F begun"));
        pod.client.stop(&main, 0).await?;
        ensure!(pod.client.status(&main).await?.exit_code == 137);
        pod.finish().await
    });
}

#[test]
fn root_a_pod_whose_monitor_hangs_is_stopped() {
    test_pod("hang", 39, SERVER, async |mut pod| {
        let main = pod.start_sleeping().await?;
        let dir = pod.node.dir().join("state/pods").join(&pod.id);
        signal_monitor_of(&dir, rustix::process::Signal::STOP)?;
        let start = std::time::Instant::now();
        // The first call may tell that the container could not be asked.
        while let Err(error) = pod.client.stop_pod(&pod.id).await {
            ensure!(start.elapsed() < 10 * WITHIN, "{error}");
        }
        println!("stopped in {} ms", start.elapsed().as_millis());
        let ended = pod.client.await_exit(&main, WITHIN).await?;
        ensure!(ended.exit_code == 255, "nobody saw its end: {ended:?}");
        pod.finish().await
    });
}

#[test]
fn root_a_monitor_lost_while_no_server_ran_is_found() {
    test_pod("gone", 23, SERVER, async |mut pod| {
        let main = pod.start_sleeping().await?;
        pod.node.kill_server()?;
        kill_monitor_of(&pod.node.dir().join("state/pods").join(&pod.id))?;
        pod.client = pod.node.start_server().await?;
        let ended = pod.client.await_exit(&main, WITHIN).await?;
        ensure!(
            (ended.exit_code, ended.reason.as_str()) == (255, "MonitorLost"),
            "{ended:?}"
        );
        ensure!(
            pod.client.pod_status(&pod.id).await?.state() == cri::PodSandboxState::SandboxNotready
        );
        pod.finish().await
    });
}

#[test]
fn root_a_server_killed_while_it_stops_a_pod_goes_on_stopping_it() {
    test_pod("stop", 25, SERVER, async |mut pod| {
        let main = pod.start_sleeping().await?;
        pod.node.kill_server()?;
        let file = pod.node.dir().join("state/pods").join(&pod.id);
        let file = file.join("sandbox.json");
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        ensure!(record["phase"] == "Ready", "{record}");
        record["phase"] = "Stopping".into();
        std::fs::write(&file, serde_json::to_vec(&record)?)?;
        pod.client = pod.node.start_server().await?;
        let ended = pod.client.await_exit(&main, WITHIN).await?;
        ensure!(ended.exit_code == 137, "its end was seen: {ended:?}");
        ensure!(
            pod.client.pod_status(&pod.id).await?.state() == cri::PodSandboxState::SandboxNotready
        );
        pod.finish().await
    });
}

#[test]
fn root_a_server_ends_while_a_container_is_being_stopped() {
    test_pod("ends", 31, SERVER, async |mut pod| {
        let script = "trap '' TERM; while :; do sleep 0.05; done";
        let main = pod.start(&pod.script("main", script)).await?;
        let (mut stopper, mut executor) = (pod.client.clone(), pod.client.clone());
        let (stopped, executed, ended) = tokio::join!(
            stopper.stop(&main, 3600),
            executor.exec(&main, &["sleep", "3600"], 0),
            async {
                // Until both calls are served.
                tokio::time::sleep(Duration::from_millis(300)).await;
                pod.node.end_server().await
            },
        );
        ended?;
        let refused = stopped.unwrap_err();
        ensure!(refused.to_string().contains("shutting down"), "{refused}");
        ensure!(executed.is_err());
        pod.client = pod.node.start_server().await?;
        let state = pod.client.status(&main).await?.state();
        ensure!(
            state == cri::ContainerState::ContainerRunning,
            "it was asked, and goes on: {state:?}"
        );
        pod.client.stop(&main, 1).await?;
        ensure!(pod.client.status(&main).await?.exit_code == 137);
        pod.finish().await
    });
}

#[test]
fn root_a_server_killed_at_work_leaves_nothing_half_made() {
    test_pod("half", 24, SERVER, async |mut pod| {
        for delay in [2, 5, 9, 14, 20, 30] {
            let mut tasks = tokio::task::JoinSet::new();
            for index in 0..4 {
                let (mut client, logs) = (pod.client.clone(), pod.node.logs());
                let config = client::pod(&format!("half{delay}-{index}"), &logs);
                tasks.spawn(async move { client.run_pod(&config).await });
            }
            tokio::time::sleep(Duration::from_millis(delay)).await;
            pod.node.kill_server()?;
            while tasks.join_next().await.is_some() {}
            pod.client = pod.node.start_server().await?;
            for index in 0..4 {
                let config = client::pod(&format!("half{delay}-{index}"), &pod.node.logs());
                let id = pod.client.run_pod(&config).await?;
                ensure!(
                    !pod.client
                        .pod_status(&id)
                        .await?
                        .network
                        .context("none")?
                        .ip
                        .is_empty()
                );
            }
            let all = pod
                .client
                .runtime
                .list_pod_sandbox(cri::ListPodSandboxRequest::default());
            let all = all.await?.into_inner().items;
            let ready =
                |item: &&cri::PodSandbox| item.state() == cri::PodSandboxState::SandboxReady;
            ensure!(all.iter().filter(ready).count() == 5, "{all:?}");
            for item in all.iter().filter(|item| item.id != pod.id) {
                pod.client.remove_pod(&item.id).await?;
            }
        }
        pod.finish().await
    });
}

#[test]
fn root_after_a_reboot_nothing_runs_and_everything_can_be_removed() {
    test_pod("boot", 32, SERVER, async |mut pod| {
        let running = pod.start_sleeping().await?;
        let ended = pod.start(&pod.script("ended", "exit 6")).await?;
        pod.client.await_exit(&ended, WITHIN).await?;
        let created = pod.script("created", "exit 0");
        let created = pod.client.create(&pod.id, &created, &pod.config).await?;
        let before = pod.client.status(&ended).await?;

        reboot(&mut pod.node).await?;
        pod.client = pod.node.start_server().await?;
        for id in [&running, &created] {
            let status = pod.client.status(id).await?;
            let end = (status.state(), status.exit_code, status.reason.as_str());
            let lost = (cri::ContainerState::ContainerExited, 255, "Unknown");
            ensure!(end == lost, "{status:?}");
        }
        ensure!(
            pod.client.status(&ended).await? == before,
            "it keeps its end"
        );
        let sandbox = pod.client.pod_status(&pod.id).await?;
        ensure!(
            sandbox.state() == cri::PodSandboxState::SandboxNotready,
            "{sandbox:?}"
        );
        let refused = pod.client.start(&running).await.unwrap_err();
        ensure!(refused.to_string().contains("not created"), "{refused}");
        let alive = |effect: &&String| {
            let kinds = ["/proc/", "/sys/", "/leases/"];
            kinds.iter().any(|kind| effect.contains(kind))
        };
        let start = std::time::Instant::now();
        loop {
            // The kernel takes a dropped network namespace's links away in its own time.
            let effects = pod.node.effects();
            let alive: Vec<_> = effects.iter().filter(alive).collect();
            if alive.is_empty() {
                break;
            }
            ensure!(start.elapsed() < WITHIN, "{alive:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        let mut next = pod.config.clone();
        next.metadata.as_mut().context("no metadata")?.attempt = 1;
        let next = pod.client.run_pod(&next).await?;
        for id in [&running, &ended, &created] {
            pod.client.remove(id).await?;
        }
        pod.client.remove_pod(&next).await?;
        pod.finish().await
    });
}

/// What a reboot does to a node: no process, no state below /run, another boot id.
async fn reboot(node: &mut Node) -> Result<()> {
    node.end_server().await?;
    for cgroup in node.cgroups() {
        std::fs::write(cgroup.join("cgroup.kill"), "1")?;
    }
    let state = node.dir().join("state");
    for pod in std::fs::read_dir(state.join("pods"))? {
        let shm = pod?.path().join("shm");
        rustix::mount::unmount(&shm, rustix::mount::UnmountFlags::DETACH)?;
    }
    std::fs::remove_dir_all(&state)?;
    for kind in ["sandboxes", "containers"] {
        for file in std::fs::read_dir(node.dir().join("data").join(kind))? {
            let file = file?.path();
            let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
            record["boot_id"] = "an earlier one".into();
            std::fs::write(&file, record.to_string())?;
        }
    }
    Ok(())
}

fn kill_monitor_of(dir: &std::path::Path) -> Result<()> {
    signal_monitor_of(dir, rustix::process::Signal::KILL)
}

/// Sends a signal to the process that serves the pod directory `dir`.
fn signal_monitor_of(dir: &std::path::Path, signal: rustix::process::Signal) -> Result<()> {
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("monitor.json"))?)?;
    let pid = state["monitor_pid"]
        .as_i64()
        .context("no pid in monitor.json")?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}
