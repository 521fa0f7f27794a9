//! Step b: image, sandbox, container, exec, logs, stop and remove through our CRI client.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use berth_proto::cri as v1;

use super::cri_client::CriClient;
use super::tour::{Tour, expect};
use super::{Step, step};

pub const STEPS: &[Step] = &[
    step(
        "cri: the server answers Version, Status and RuntimeConfig",
        answers,
    ),
    step("cri: PullImage, ImageStatus and ListImages", pulls),
    step("cri: RunPodSandbox gives the pod an address", runs_sandbox),
    step("cri: CreateContainer and StartContainer", starts_container),
    step("cri: ExecSync passes output and exit code", execs),
    step("cri: the log holds what the container prints", logs),
    step("cri: ContainerStats names the container", stats),
    step(
        "cri: a call that is not written returns UNIMPLEMENTED with its name",
        unimplemented,
    ),
    step(
        "cri: a pull of an absent image carries the registry's reason",
        pull_fails,
    ),
    step(
        "cri: StopContainer, RemoveContainer and RemovePodSandbox are idempotent",
        removes,
    ),
    step("cri: RemoveImage frees the image", removes_image),
];

const SOCKET: &str = "/run/berth/cri.sock";

fn answers(tour: &mut Tour) -> Result<()> {
    let daemon = tour.daemon("cri", &[])?;
    tour.halves.push(daemon);
    let mut client = tour.eventually(10, |_| CriClient::connect(SOCKET.as_ref()))?;
    let mut pods = client.pods.clone();
    let version = client.wait(pods.version(v1::VersionRequest::default()))?;
    ensure!(
        version.runtime_name == "berth",
        "runtime name {:?}",
        version.runtime_name
    );
    client.wait(pods.runtime_config(v1::RuntimeConfigRequest::default()))?;
    let status = client.wait(pods.status(v1::StatusRequest::default()))?;
    let status = status.status.context("no status")?;
    for condition in ["RuntimeReady", "NetworkReady"] {
        let found = status.conditions.iter().find(|c| c.r#type == condition);
        let found = found.with_context(|| format!("no condition {condition}"))?;
        ensure!(found.status, "{condition} is false: {}", found.message);
    }
    client.sandbox.clear();
    tour.cri = Some(client);
    Ok(())
}

fn pulls(tour: &mut Tour) -> Result<()> {
    let image = v1::ImageSpec {
        image: tour.image("busybox:latest"),
        ..Default::default()
    };
    let client = client(tour)?;
    let mut images = client.images.clone();
    let request = v1::PullImageRequest {
        image: Some(image.clone()),
        ..Default::default()
    };
    let pulled = client.wait(images.pull_image(request))?;
    let request = v1::ImageStatusRequest {
        image: Some(image.clone()),
        verbose: false,
    };
    let status = client
        .wait(images.image_status(request))?
        .image
        .context("not found")?;
    ensure!(
        !pulled.image_ref.is_empty() && status.size > 0,
        "{status:?}"
    );
    ensure!(
        status.repo_tags.contains(&image.image),
        "tags {:?}",
        status.repo_tags
    );
    let listed = client.wait(images.list_images(v1::ListImagesRequest::default()))?;
    ensure!(
        listed.images.iter().any(|i| i.id == status.id),
        "not listed"
    );
    Ok(())
}

fn runs_sandbox(tour: &mut Tour) -> Result<()> {
    let config = sandbox(tour);
    fs::create_dir_all(&config.log_directory)?;
    let client = client(tour)?;
    let mut pods = client.pods.clone();
    let request = v1::RunPodSandboxRequest {
        config: Some(config),
        ..Default::default()
    };
    let id = client.wait(pods.run_pod_sandbox(request))?.pod_sandbox_id;
    client.sandbox.clone_from(&id);
    let request = v1::PodSandboxStatusRequest {
        pod_sandbox_id: id,
        verbose: false,
    };
    let status = client
        .wait(pods.pod_sandbox_status(request))?
        .status
        .context("no status")?;
    ensure!(
        status.state() == v1::PodSandboxState::SandboxReady,
        "{:?}",
        status.state()
    );
    let address = status.network.context("no network")?.ip;
    address
        .parse::<std::net::IpAddr>()
        .with_context(|| format!("address {address:?}"))?;
    Ok(())
}

fn starts_container(tour: &mut Tour) -> Result<()> {
    let sandbox_config = sandbox(tour);
    let image = v1::ImageSpec {
        image: tour.image("busybox:latest"),
        ..Default::default()
    };
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: "main".into(),
            attempt: 0,
        }),
        image: Some(image),
        command: [
            "sh",
            "-c",
            "echo up as $NAME; trap 'exit 0' TERM; while :; do sleep 0.1; done",
        ]
        .map(Into::into)
        .to_vec(),
        envs: vec![v1::KeyValue {
            key: "NAME".into(),
            value: "tour".into(),
        }],
        log_path: "main.log".into(),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let client = client(tour)?;
    let mut pods = client.pods.clone();
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: client.sandbox.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let id = client.wait(pods.create_container(request))?.container_id;
    client.container.clone_from(&id);
    let request = v1::StartContainerRequest {
        container_id: id.clone(),
    };
    client.wait(pods.start_container(request))?;
    let request = v1::ContainerStatusRequest {
        container_id: id,
        verbose: false,
    };
    let status = client
        .wait(pods.container_status(request))?
        .status
        .context("no status")?;
    ensure!(
        status.state() == v1::ContainerState::ContainerRunning,
        "{:?}",
        status.state()
    );
    Ok(())
}

fn execs(tour: &mut Tour) -> Result<()> {
    let client = client(tour)?;
    let mut pods = client.pods.clone();
    let request = v1::ExecSyncRequest {
        container_id: client.container.clone(),
        cmd: ["sh", "-c", "echo $NAME; echo bad >&2; exit 5"]
            .map(Into::into)
            .to_vec(),
        timeout: 20,
    };
    let answer = client.wait(pods.exec_sync(request))?;
    ensure!(answer.exit_code == 5, "exit code {}", answer.exit_code);
    ensure!(
        answer.stdout == b"tour\n" && answer.stderr == b"bad\n",
        "{answer:?}"
    );
    Ok(())
}

fn logs(tour: &mut Tour) -> Result<()> {
    let log = tour.file("cri-logs").join("main.log");
    tour.eventually(5, |_| {
        expect(&fs::read_to_string(&log)?, " stdout F up as tour")
    })
}

fn stats(tour: &mut Tour) -> Result<()> {
    let client = client(tour)?;
    let mut pods = client.pods.clone();
    let request = v1::ContainerStatsRequest {
        container_id: client.container.clone(),
    };
    let stats = client
        .wait(pods.container_stats(request))?
        .stats
        .context("no stats")?;
    let attributes = stats.attributes.context("no attributes")?;
    ensure!(attributes.id == client.container, "{attributes:?}");
    Ok(())
}

fn unimplemented(tour: &mut Tour) -> Result<()> {
    let client = client(tour)?;
    let mut pods = client.pods.clone();
    let request = v1::CheckpointContainerRequest::default();
    let Err(status) = client.wait(pods.checkpoint_container(request)) else {
        bail!("CheckpointContainer did something");
    };
    ensure!(status.code() == tonic::Code::Unimplemented, "{status}");
    expect(status.message(), "CheckpointContainer")
}

fn pull_fails(tour: &mut Tour) -> Result<()> {
    let image = v1::ImageSpec {
        image: tour.image("absent:latest"),
        ..Default::default()
    };
    let client = client(tour)?;
    let mut images = client.images.clone();
    let request = v1::PullImageRequest {
        image: Some(image),
        ..Default::default()
    };
    let Err(status) = client.wait(images.pull_image(request)) else {
        bail!("it was pulled")
    };
    let reason = status.message().to_lowercase();
    ensure!(
        reason.contains("unknown") || reason.contains("not found"),
        "{status}"
    );
    Ok(())
}

fn removes(tour: &mut Tour) -> Result<()> {
    let client = client(tour)?;
    let mut pods = client.pods.clone();
    let (sandbox, container) = (client.sandbox.clone(), client.container.clone());
    for _ in 0..2 {
        let container_id = container.clone();
        client.wait(pods.stop_container(v1::StopContainerRequest {
            container_id,
            timeout: 10,
        }))?;
    }
    for _ in 0..2 {
        let container_id = container.clone();
        client.wait(pods.remove_container(v1::RemoveContainerRequest { container_id }))?;
    }
    for _ in 0..2 {
        let pod_sandbox_id = sandbox.clone();
        client.wait(pods.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id }))?;
    }
    for _ in 0..2 {
        let pod_sandbox_id = sandbox.clone();
        client.wait(pods.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id }))?;
    }
    let left = client.wait(pods.list_pod_sandbox(v1::ListPodSandboxRequest::default()))?;
    ensure!(
        left.items.is_empty(),
        "{} sandboxes are left",
        left.items.len()
    );
    Ok(())
}

fn removes_image(tour: &mut Tour) -> Result<()> {
    let image = v1::ImageSpec {
        image: tour.image("busybox:latest"),
        ..Default::default()
    };
    let client = client(tour)?;
    let mut images = client.images.clone();
    client.wait(images.remove_image(v1::RemoveImageRequest {
        image: Some(image.clone()),
    }))?;
    let request = v1::ImageStatusRequest {
        image: Some(image),
        verbose: false,
    };
    let status = client.wait(images.image_status(request))?;
    ensure!(status.image.is_none(), "still there");
    Ok(())
}

fn client(tour: &mut Tour) -> Result<&mut CriClient> {
    tour.cri.as_mut().context("the CRI server does not run")
}

fn sandbox(tour: &Tour) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "tour".into(),
            uid: "b7f5a3f0-0000-4000-8000-000000000001".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "tour".into(),
        log_directory: tour.file("cri-logs").display().to_string(),
        linux: Some(v1::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}
