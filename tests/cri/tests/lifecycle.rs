//! What a kubelet does with pods and containers, from the first pull to the last removal.

use std::time::Duration;

use anyhow::{Context, ensure};
use berth_proto::cri;
use berth_test_cri::client;
use berth_test_cri::node::{Pod, test_pod};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn root_a_sandbox_has_an_address_and_ends_idempotently() {
    test_pod("sand", 1, SERVER, async |mut pod| {
        ensure!(pod.image.starts_with("sha256:"), "{}", pod.image);
        ensure!(
            pod.client.run_pod(&pod.config).await? == pod.id,
            "a retry makes no second"
        );
        let status = pod.client.pod_status(&pod.id).await?;
        let ip = status.network.context("no network")?.ip;
        ensure!(ip.starts_with("10.213.1."), "{ip}");
        pod.client.stop_pod(&pod.id).await?;
        pod.client.stop_pod(&pod.id).await?;
        let status = pod.client.pod_status(&pod.id).await?;
        ensure!(status.state() == cri::PodSandboxState::SandboxNotready);
        pod.client.remove_pod(&pod.id).await?;
        pod.client.remove_pod(&pod.id).await?;
        pod.client.stop_pod("0123").await?;
        pod.node.finish()
    });
}

#[test]
fn root_a_container_logs_executes_and_stops() {
    test_pod("cont", 2, SERVER, async |mut pod| {
        let script = "echo out; echo err >&2; echo $FROM $HOSTNAME; exec sleep 1000";
        let id = pod.start(&pod.script("main", script)).await?;
        let status = pod.client.status(&id).await?;
        ensure!(
            status.state() == cri::ContainerState::ContainerRunning,
            "{status:?}"
        );
        let command = ["sh", "-c", "echo hi; echo no >&2; exit 3"];
        let output = pod.client.exec(&id, &command, 5).await?;
        let seen = (output.stdout, output.stderr, output.exit_code);
        ensure!(seen == (b"hi\n".to_vec(), b"no\n".to_vec(), 3), "{seen:?}");
        let names = ["cat", "/etc/hostname", "/proc/sys/kernel/hostname"];
        let output = pod.client.exec(&id, &names, 5).await?;
        ensure!(output.stdout == b"pod\npod\n", "{output:?}");
        let late = pod
            .client
            .exec(&id, &["sh", "-c", "sleep 61 & sleep 61"], 1)
            .await
            .unwrap_err();
        ensure!(late.code() == tonic::Code::DeadlineExceeded, "{late}");
        let left = pod
            .client
            .exec(&id, &["sh", "-c", "cat /proc/[0-9]*/cmdline"], 5)
            .await?;
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        ensure!(
            !left.contains("sleep\x0061"),
            "the timeout left a child: {left}"
        );
        let log = pod.log("main");
        for line in [" stdout F out", " stderr F err", " stdout F image pod"] {
            ensure!(log.contains(line), "no `{line}` in {log}");
        }
        pod.client.stop(&id, 2).await?;
        let ended = pod.client.status(&id).await?;
        ensure!(
            ended.exit_code == 143 || ended.exit_code == 137,
            "{ended:?}"
        );
        pod.client.remove(&id).await?;
        pod.client.remove(&id).await?;
        pod.finish().await
    });
}

#[test]
fn root_ends_are_told_as_they_were() {
    test_pod("ends", 3, SERVER, async |mut pod| {
        for (name, script, code, reason) in [
            ("good", "exit 0", 0, "Completed"),
            ("bad", "exit 7", 7, "Error"),
            ("signal", "kill -9 $$", 137, "Error"),
        ] {
            let id = pod.start(&pod.script(name, script)).await?;
            let ended = pod.client.await_exit(&id, WITHIN).await?;
            ensure!(
                (ended.exit_code, ended.reason.as_str()) == (code, reason),
                "{ended:?}"
            );
            ensure!(ended.finished_at >= ended.started_at && ended.started_at > 0);
        }
        let absent = client::container("absent", &pod.image, &["/no/such"]);
        let absent = pod.client.create(&pod.id, &absent, &pod.config).await?;
        let refused = pod.client.start(&absent).await.unwrap_err();
        ensure!(refused.to_string().contains("/no/such"), "{refused}");
        let ended = pod.client.status(&absent).await?;
        ensure!(
            (ended.exit_code, ended.reason.as_str()) == (128, "StartError"),
            "{ended:?}"
        );
        pod.finish().await
    });
}

#[test]
fn root_events_are_numbered_and_resumed() {
    test_pod("evnt", 4, SERVER, async |mut pod| {
        let mut stream = pod
            .client
            .runtime
            .get_container_events(cri::GetEventsRequest {})
            .await?
            .into_inner();
        let id = pod.start(&pod.script("short", "exit 0")).await?;
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let event = tokio::time::timeout(WITHIN, stream.message())
                .await??
                .context("ended")?;
            ensure!(event.container_id == id);
            seen.push((event.berth_sequence, event.container_event_type()));
        }
        use cri::ContainerEventType::{
            ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent,
        };
        let first = seen[0].0;
        let expected = vec![
            (first, ContainerCreatedEvent),
            (first + 1, ContainerStartedEvent),
            (first + 2, ContainerStoppedEvent),
        ];
        ensure!(seen == expected, "{seen:?}");
        drop(stream);
        let resume = |after: u64| {
            let mut request = tonic::Request::new(cri::GetEventsRequest {});
            request
                .metadata_mut()
                .insert(berth_cri::RESUME_HEADER, after.into());
            request
        };
        let mut stream = pod
            .client
            .runtime
            .get_container_events(resume(first + 1))
            .await?
            .into_inner();
        let event = tokio::time::timeout(WITHIN, stream.message())
            .await??
            .context("ended")?;
        ensure!(event.berth_sequence == first + 2);
        let refused = pod
            .client
            .runtime
            .get_container_events(resume(7))
            .await
            .unwrap_err();
        ensure!(refused.code() == tonic::Code::OutOfRange, "{refused}");
        drop(stream);
        pod.finish().await
    });
}

#[test]
fn root_logs_are_reopened_and_use_is_told() {
    test_pod("logs", 5, SERVER, async |mut pod| {
        let script = "while true; do echo tick; sleep 0.05; done";
        let id = pod.start(&pod.script("main", script)).await?;
        let file = std::path::Path::new(&pod.config.log_directory).join("main.log");
        let rotated = file.with_extension("log.1");
        std::fs::rename(&file, &rotated)?;
        let request = cri::ReopenContainerLogRequest {
            container_id: id.clone(),
        };
        pod.client.runtime.reopen_container_log(request).await?;
        let before = std::fs::read_to_string(&rotated)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        ensure!(
            std::fs::read_to_string(&rotated)? == before,
            "the old file is closed"
        );
        ensure!(pod.log("main").contains("tick"));
        let request = cri::ContainerStatsRequest {
            container_id: id.clone(),
        };
        let stats = pod
            .client
            .runtime
            .container_stats(request)
            .await?
            .into_inner()
            .stats;
        let stats = stats.context("no stats")?;
        let memory = stats.memory.context("no memory")?;
        ensure!(memory.timestamp > 0 && memory.working_set_bytes.is_some_and(|set| set.value > 0));
        let cpu = stats.cpu.context("no cpu")?;
        ensure!(
            cpu.timestamp > 0
                && cpu
                    .usage_core_nano_seconds
                    .is_some_and(|used| used.value > 0)
        );
        let request = cri::PodSandboxStatsRequest {
            pod_sandbox_id: pod.id.clone(),
        };
        let stats = pod
            .client
            .runtime
            .pod_sandbox_stats(request)
            .await?
            .into_inner()
            .stats;
        let network = stats
            .and_then(|stats| stats.linux?.network)
            .context("no network")?;
        ensure!(
            network
                .default_interface
                .is_some_and(|eth| eth.name == "eth0")
        );
        pod.finish().await
    });
}

#[test]
fn root_many_pods_at_once_are_each_made_once() {
    test_pod("many", 6, SERVER, async |pod: Pod| {
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..30 {
            let (mut client, image, logs) =
                (pod.client.clone(), pod.image.clone(), pod.node.logs());
            tasks.spawn(async move {
                let config = client::pod(&format!("p{index}"), &logs);
                let id = client.run_pod(&config).await?;
                let main = client::container("main", &image, &["sleep", "1000"]);
                client.run(&id, &main, &config).await?;
                let network = client
                    .pod_status(&id)
                    .await?
                    .network
                    .context("no network")?;
                anyhow::Ok((id, network.ip))
            });
        }
        let mut made = Vec::new();
        while let Some(done) = tasks.join_next().await {
            made.push(done??);
        }
        let distinct: std::collections::BTreeSet<_> = made.iter().map(|(_, ip)| ip).collect();
        ensure!(distinct.len() == 30, "{distinct:?}");
        let mut client = pod.client.clone();
        let request = cri::ListContainersRequest::default();
        let listed = client
            .runtime
            .list_containers(request)
            .await?
            .into_inner()
            .containers;
        ensure!(listed.len() == 30, "{}", listed.len());
        pod.finish().await
    });
}

/// What is not written is refused by its name.
#[test]
fn root_an_rpc_that_is_not_there_is_named() {
    test_pod("none", 7, SERVER, async |mut pod| {
        let request = cri::CheckpointContainerRequest::default();
        let refused = pod
            .client
            .runtime
            .checkpoint_container(request)
            .await
            .unwrap_err();
        ensure!(refused.code() == tonic::Code::Unimplemented);
        ensure!(
            refused.message().contains("CheckpointContainer"),
            "{refused}"
        );
        let mut config = pod.script("devices", "true");
        config.devices = vec![cri::Device::default()];
        let refused = pod
            .client
            .create(&pod.id, &config, &pod.config)
            .await
            .unwrap_err();
        ensure!(
            refused.to_string().contains("devices: single host devices"),
            "{refused}"
        );
        pod.finish().await
    });
}
