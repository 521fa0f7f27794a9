//! The life of one pod with one container over CRI, each call timed.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_proto::cri as v1;

use super::server::Client;

/// What each figure of a [`Life`] is called.
pub const CALLS: [&str; 8] = [
    "run-sandbox",
    "create-container",
    "start-container",
    "pod-start",
    "exec-sync",
    "stop",
    "stop-sandbox",
    "remove",
];

/// Milliseconds for each of [`CALLS`]; `pod-start` is the sum of the three before it.
pub type Life = [f64; CALLS.len()];

/// The parent group of the pods of every side.
pub const CGROUP: &str = "berth-bench";

/// A container that obeys SIGTERM at once.
const SCRIPT: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// A running pod.
pub struct Pod {
    sandbox: String,
    container: String,
}

/// Makes and removes a pod; `number` names it.
pub async fn live(client: &Client, image: &str, number: usize) -> Result<Life> {
    let (pod, [run, create, start]) = begin(client, image, number).await?;
    let mut pods = client.pods.clone();
    let exec = v1::ExecSyncRequest {
        container_id: pod.container.clone(),
        cmd: vec!["/bin/true".into()],
        timeout: 20,
    };
    let (exec, answer) = timed(pods.exec_sync(exec)).await.context("ExecSync")?;
    ensure!(
        answer.exit_code == 0,
        "exec ended with {}",
        answer.exit_code
    );
    let stop = v1::StopContainerRequest {
        container_id: pod.container,
        timeout: 20,
    };
    let (stop, _) = timed(pods.stop_container(stop))
        .await
        .context("StopContainer")?;
    let stop_sandbox = v1::StopPodSandboxRequest {
        pod_sandbox_id: pod.sandbox.clone(),
    };
    let (stop_sandbox, _) = timed(pods.stop_pod_sandbox(stop_sandbox))
        .await
        .context("StopPodSandbox")?;
    let remove = v1::RemovePodSandboxRequest {
        pod_sandbox_id: pod.sandbox,
    };
    let (remove, _) = timed(pods.remove_pod_sandbox(remove))
        .await
        .context("RemovePodSandbox")?;
    let pod_start = run + create + start;
    Ok([
        run,
        create,
        start,
        pod_start,
        exec,
        stop,
        stop_sandbox,
        remove,
    ])
}

/// Makes a pod with a running container, and the times of the three calls.
pub async fn begin(client: &Client, image: &str, number: usize) -> Result<(Pod, [f64; 3])> {
    let mut pods = client.pods.clone();
    let sandbox_config = sandbox(client, number);
    let request = v1::RunPodSandboxRequest {
        config: Some(sandbox_config.clone()),
        ..Default::default()
    };
    let (run, answer) = timed(pods.run_pod_sandbox(request))
        .await
        .context("RunPodSandbox")?;
    let sandbox = answer.pod_sandbox_id;
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(container(image)),
        sandbox_config: Some(sandbox_config),
    };
    let (create, answer) = timed(pods.create_container(request))
        .await
        .context("CreateContainer")?;
    let container = answer.container_id;
    let request = v1::StartContainerRequest {
        container_id: container.clone(),
    };
    let (start, _) = timed(pods.start_container(request))
        .await
        .context("StartContainer")?;
    Ok((Pod { sandbox, container }, [run, create, start]))
}

fn sandbox(client: &Client, number: usize) -> v1::PodSandboxConfig {
    let name = format!("bench-{number}");
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.clone(),
            uid: format!("00000000-0000-4000-8000-{number:012}"),
            namespace: "bench".into(),
            attempt: 0,
        }),
        hostname: name.clone(),
        log_directory: client.logs.join(&name).display().to_string(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{CGROUP}"),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container(image: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: "main".into(),
            attempt: 0,
        }),
        image: Some(v1::ImageSpec {
            image: image.into(),
            ..Default::default()
        }),
        command: ["sh", "-c", SCRIPT].map(Into::into).to_vec(),
        log_path: "main.log".into(),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// As a kubelet asks: network and IPC are the pod's, processes the container's own.
fn namespaces() -> v1::NamespaceOption {
    v1::NamespaceOption {
        network: v1::NamespaceMode::Pod.into(),
        ipc: v1::NamespaceMode::Pod.into(),
        pid: v1::NamespaceMode::Container.into(),
        ..Default::default()
    }
}

/// Waits for a call's answer: milliseconds, and the answer.
async fn timed<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<(f64, T)> {
    let started = Instant::now();
    let answer = call.await?;
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    Ok((milliseconds, answer.into_inner()))
}
