//! `berth why POD`: which step a pod waits on, and for how long, from what this machine
//! knows without the API server.

use std::collections::BTreeMap;

use anyhow::Context;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use berth_proto::cri::{
    ContainerState, ContainerStatus, ContainerStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, PodSandbox, PodSandboxState, PodSandboxStatusRequest,
};

use tonic::transport::Channel;

use crate::local;

type Cri = RuntimeServiceClient<Channel>;

/// Flags of `berth why`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    local: local::Options,
    /// Namespace of the pod
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Name of the pod
    pod: String,
}

/// Prints the sandbox and each container with its state, the open step marked.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let name = format!("{}/{}", options.namespace, options.pod);
    local::ask(async {
        let mut cri = local::connect(&options.local.cri_socket).await?;
        let all = cri
            .list_pod_sandbox(ListPodSandboxRequest { filter: None })
            .await?
            .into_inner()
            .items;
        let own = |s: &&PodSandbox| {
            s.metadata
                .as_ref()
                .is_some_and(|m| m.name == options.pod && m.namespace == options.namespace)
        };
        let Some(sandbox) = all.iter().filter(own).max_by_key(|s| s.created_at) else {
            print_absent(options);
            return Ok(());
        };
        println!("{name}: {}", describe_sandbox(&mut cri, sandbox).await?);
        let newest = newest_containers(&mut cri, &sandbox.id).await?;
        if newest.is_empty() {
            println!("  waits on: its first image pull, or on being created by the kubelet");
        }
        for (name, status) in &newest {
            println!("  {name}: {}", describe(status));
        }
        Ok(())
    })
}

fn print_absent(options: &Options) {
    let Options { namespace, pod, .. } = options;
    println!("{namespace}/{pod}: no sandbox on this machine");
    println!("  waits on: the scheduler, admission by the kubelet, its volumes, or its network");
    println!("  the API server knows more: kubectl describe pod {pod} -n {namespace}");
}

async fn describe_sandbox(cri: &mut Cri, sandbox: &PodSandbox) -> anyhow::Result<String> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: sandbox.id.clone(),
        verbose: false,
    };
    let status = cri.pod_sandbox_status(request).await?.into_inner().status;
    let ip = status
        .and_then(|s| s.network)
        .map_or(String::new(), |n| n.ip);
    let ready = sandbox.state() == PodSandboxState::SandboxReady;
    let state = if ready { "ready" } else { "not ready" };
    let address = if ip.is_empty() {
        String::new()
    } else {
        format!(", address {ip}")
    };
    Ok(format!(
        "sandbox {state} for {}{address}",
        local::age(sandbox.created_at)
    ))
}

/// The newest instance of each container of the sandbox, by name.
async fn newest_containers(
    cri: &mut Cri,
    sandbox: &str,
) -> anyhow::Result<BTreeMap<String, ContainerStatus>> {
    let all = cri
        .list_containers(ListContainersRequest { filter: None })
        .await?
        .into_inner()
        .containers;
    let mut newest: BTreeMap<String, ContainerStatus> = BTreeMap::new();
    for container in all.into_iter().filter(|c| c.pod_sandbox_id == sandbox) {
        let request = ContainerStatusRequest {
            container_id: container.id,
            verbose: false,
        };
        let answer = cri.container_status(request).await?.into_inner();
        let status = answer.status.context("a container without status")?;
        let name = status
            .metadata
            .as_ref()
            .map_or(String::new(), |m| m.name.clone());
        if newest
            .get(&name)
            .is_none_or(|held| held.created_at < status.created_at)
        {
            newest.insert(name, status);
        }
    }
    Ok(newest)
}

fn describe(status: &ContainerStatus) -> String {
    let attempt = status.metadata.as_ref().map_or(0, |m| m.attempt);
    match status.state() {
        ContainerState::ContainerCreated => format!(
            "created {} ago, waits on its start",
            local::age(status.created_at)
        ),
        ContainerState::ContainerRunning => {
            format!(
                "running for {} (attempt {attempt}); if not Ready, it waits on its readiness probe",
                local::age(status.started_at)
            )
        }
        ContainerState::ContainerExited => format!(
            "exited {} ago with {} ({}{}), attempt {attempt}; {}",
            local::age(status.finished_at),
            status.exit_code,
            status.reason,
            if status.message.is_empty() {
                String::new()
            } else {
                format!(": {}", status.message)
            },
            if status.exit_code == 0 {
                "done, unless its restart policy is Always"
            } else {
                "waits on its restart policy and back-off"
            }
        ),
        ContainerState::ContainerUnknown => "unknown: its monitor does not answer".into(),
    }
}
