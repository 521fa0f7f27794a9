//! containerd's CRI server as a kubelet sees it: `containerd.sh` calls this inside the VM, and
//! what it prints is compared like everything else that the script says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_proto::cri as v1;
use berth_proto::cri::image_service_client::ImageServiceClient;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::images;

/// Where the scripts' registry serves.
const REGISTRY: &str = "127.0.0.1:5000";
const IMAGE: &str = "127.0.0.1:5000/busybox:latest";
/// A group that the kubelet would have made; with systemd containerd wants a slice.
const PARENTS: [(&str, &str); 2] = [("cgroupfs", "/berth-engines"), ("systemd", "berth.slice")];
const CALL_LIMIT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(200);
const MIB: i64 = 1 << 20;

/// Where the server is, and what a pod of it needs.
#[derive(clap::Args)]
pub struct Pods {
    /// Talk to the CRI server at this socket
    #[arg(long, hide = true, requires_all = ["pause", "scratch"])]
    cri: Option<PathBuf>,
    /// Push an image of this program, `pause:latest`, for its sandboxes
    #[arg(long, hide = true)]
    pause: Option<PathBuf>,
    /// Who makes the cgroups: cgroupfs or systemd
    #[arg(long, hide = true, default_value = "cgroupfs")]
    cgroups: String,
    /// A folder for logs
    #[arg(long, hide = true)]
    scratch: Option<PathBuf>,
}

impl Pods {
    /// Talks to the server, if one is named.
    pub fn run(&self) -> Result<bool> {
        let (Some(socket), Some(pause), Some(scratch)) = (&self.cri, &self.pause, &self.scratch)
        else {
            return Ok(false);
        };
        images::push(REGISTRY, &images::pause(pause, &scratch.join("pause"))?)?;
        let parent = PARENTS.iter().find(|(name, _)| *name == self.cgroups);
        let (_, parent) = parent.with_context(|| format!("no cgroups of `{}`", self.cgroups))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut kubelet = Kubelet::connect(socket, &scratch.join("logs"), parent).await?;
            kubelet.life().await?;
            kubelet.end().await
        })?;
        Ok(true)
    }
}

/// A client with one pod.
struct Kubelet {
    pods: RuntimeServiceClient<Channel>,
    config: v1::PodSandboxConfig,
    sandbox: String,
}

impl Kubelet {
    /// Pulls the image and makes the pod.
    async fn connect(socket: &Path, logs: &Path, parent: &str) -> Result<Self> {
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()))?;
        let channel = endpoint.timeout(CALL_LIMIT).connect().await?;
        let mut pods = RuntimeServiceClient::new(channel.clone());
        let pull = v1::PullImageRequest {
            image: Some(image()),
            ..Default::default()
        };
        let pulled = ImageServiceClient::new(channel).pull_image(pull).await;
        pulled.context("PullImage")?;
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "engine".into(),
                uid: "00000000-0000-4000-8000-000000000001".into(),
                namespace: "tested".into(),
                attempt: 0,
            }),
            hostname: "engine".into(),
            log_directory: logs.display().to_string(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: parent.into(),
                sysctls: [("net.ipv4.ip_forward".into(), "1".into())].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = v1::RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let made = pods.run_pod_sandbox(request).await;
        let sandbox = made.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
        Ok(Self {
            pods,
            config,
            sandbox,
        })
    }

    /// Containers of several kinds, one after the other.
    async fn life(&mut self) -> Result<()> {
        let script = "echo out; echo err >&2; exit 3";
        let id = self.run("plain", script, |_| {}).await?;
        self.tell_end("plain", id).await?;
        let id = self.run("confined", "sleep 1000", confine).await?;
        self.exec(
            &id,
            "id; hostname; cat /proc/sys/net/ipv4/ip_forward; echo x >/x",
        )
        .await?;
        self.exec(
            &id,
            "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; exit 4",
        )
        .await?;
        let limits =
            "cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight; cat /proc/self/oom_score_adj";
        self.exec(&id, limits).await?;
        let update = v1::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(v1::LinuxContainerResources {
                memory_limit_in_bytes: 96 * MIB,
                cpu_quota: 20_000,
                cpu_period: 100_000,
                ..Default::default()
            }),
            ..Default::default()
        };
        let updated = self.pods.update_container_resources(update).await;
        updated.context("UpdateContainerResources")?;
        self.exec(&id, limits).await?;
        self.tell_use(&id).await?;
        self.stop(&id, 0).await?;
        self.tell_end("confined", id).await?;
        let script = "trap 'echo stopped; exit 5' TERM; echo started; while :; do sleep 0.1; done";
        let id = self.run("stops", script, |_| {}).await?;
        self.until_logged("stops", "started").await?;
        self.stop(&id, 60).await?;
        self.tell_end("stops", id).await?;
        let greedy = |linux: &mut v1::LinuxContainerConfig| {
            let limits = linux.resources.get_or_insert_default();
            limits.memory_limit_in_bytes = 16 * MIB;
            limits.memory_swap_limit_in_bytes = 16 * MIB;
        };
        let id = self.run("greedy", "tail /dev/zero", greedy).await?;
        self.tell_end("greedy", id).await
    }

    /// Makes and starts a container of this shell script.
    async fn run(
        &mut self,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut v1::LinuxContainerConfig),
    ) -> Result<String> {
        let mut linux = v1::LinuxContainerConfig::default();
        change(&mut linux);
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: name.into(),
                attempt: 0,
            }),
            image: Some(image()),
            command: ["sh", "-c", script].map(Into::into).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(linux),
            ..Default::default()
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let created = self.pods.create_container(request).await;
        let container_id = created
            .context("CreateContainer")?
            .into_inner()
            .container_id;
        let start = v1::StartContainerRequest {
            container_id: container_id.clone(),
        };
        let started = self.pods.start_container(start).await;
        started.context("StartContainer")?;
        Ok(container_id)
    }

    /// Prints what the shell script says inside, and its exit code.
    async fn exec(&mut self, id: &str, script: &str) -> Result<()> {
        let request = v1::ExecSyncRequest {
            container_id: id.into(),
            cmd: ["sh", "-c", script].map(Into::into).to_vec(),
            timeout: 60,
        };
        let answer = self.pods.exec_sync(request).await.context("ExecSync")?;
        let answer = answer.into_inner();
        for stream in [&answer.stdout, &answer.stderr] {
            print!("{}", String::from_utf8_lossy(stream));
        }
        println!("exec ends with {}", answer.exit_code);
        Ok(())
    }

    /// Prints which figures of use are told.
    async fn tell_use(&mut self, id: &str) -> Result<()> {
        let request = v1::ContainerStatsRequest {
            container_id: id.into(),
        };
        let answer = self.pods.container_stats(request).await;
        let answer = answer.context("ContainerStats")?.into_inner();
        let stats = answer.stats.unwrap_or_default();
        let memory = stats.memory.unwrap_or_default().working_set_bytes;
        let time = stats.cpu.unwrap_or_default().usage_core_nano_seconds;
        let told = |value: Option<v1::UInt64Value>| value.is_some_and(|value| value.value > 0);
        println!("stats: memory {}, time {}", told(memory), told(time));
        Ok(())
    }

    /// Waits for a container's end, and prints its status and its log.
    async fn tell_end(&mut self, name: &str, container_id: String) -> Result<()> {
        for _ in 0..300 {
            let request = v1::ContainerStatusRequest {
                container_id: container_id.clone(),
                verbose: false,
            };
            let answer = self.pods.container_status(request).await;
            let answer = answer.context("ContainerStatus")?.into_inner();
            let status = answer.status.unwrap_or_default();
            if status.state() == v1::ContainerState::ContainerExited {
                println!("{name}: exit {} {}", status.exit_code, status.reason);
                for line in self.log(name).lines() {
                    println!("{name}: {line}");
                }
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("`{name}` does not end")
    }

    /// The log without its times.
    fn log(&self, name: &str) -> String {
        let file = Path::new(&self.config.log_directory).join(format!("{name}.log"));
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines: Vec<&str> = text
            .lines()
            .filter_map(|line| Some(line.split_once(' ')?.1))
            .collect();
        // the order of the two streams is nobody's promise
        lines.sort_unstable();
        lines.join("\n")
    }

    async fn until_logged(&self, name: &str, word: &str) -> Result<()> {
        for _ in 0..300 {
            if self.log(name).contains(word) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("`{name}` does not say `{word}`")
    }

    async fn stop(&mut self, id: &str, timeout: i64) -> Result<()> {
        let request = v1::StopContainerRequest {
            container_id: id.into(),
            timeout,
        };
        let stopped = self.pods.stop_container(request).await;
        stopped.context("StopContainer")?;
        Ok(())
    }

    /// Removes the pod, and its containers with it.
    async fn end(mut self) -> Result<()> {
        let pod_sandbox_id = self.sandbox;
        let stop = v1::StopPodSandboxRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
        };
        let stopped = self.pods.stop_pod_sandbox(stop).await;
        stopped.context("StopPodSandbox")?;
        let remove = v1::RemovePodSandboxRequest { pod_sandbox_id };
        let removed = self.pods.remove_pod_sandbox(remove).await;
        removed.context("RemovePodSandbox")?;
        let listed = self
            .pods
            .list_containers(v1::ListContainersRequest::default());
        let left = listed.await.context("ListContainers")?.into_inner();
        println!("{} containers are left", left.containers.len());
        Ok(())
    }
}

/// As a careful user of Kubernetes asks.
fn confine(linux: &mut v1::LinuxContainerConfig) {
    linux.resources = Some(v1::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 * MIB,
        memory_swap_limit_in_bytes: 64 * MIB,
        oom_score_adj: 777,
        ..Default::default()
    });
    linux.security_context = Some(v1::LinuxContainerSecurityContext {
        run_as_user: Some(v1::Int64Value { value: 1000 }),
        run_as_group: Some(v1::Int64Value { value: 1001 }),
        supplemental_groups: vec![7],
        readonly_rootfs: true,
        no_new_privs: true,
        capabilities: Some(v1::Capability {
            drop_capabilities: vec!["ALL".into()],
            add_capabilities: vec!["NET_BIND_SERVICE".into()],
            ..Default::default()
        }),
        seccomp: Some(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault.into(),
            ..Default::default()
        }),
        masked_paths: vec!["/proc/kcore".into(), "/sys/firmware".into()],
        readonly_paths: vec!["/proc/sys".into()],
        ..Default::default()
    });
}

fn image() -> v1::ImageSpec {
    v1::ImageSpec {
        image: IMAGE.into(),
        ..Default::default()
    }
}
