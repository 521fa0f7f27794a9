//! `berth audit probe`: a sandbox made for the purpose, looked at from within.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use berth_audit::Kind;
use berth_proto::cri;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use serde_json::Value;
use tonic::transport::Channel;

use super::{Place, each_entry, record};
use crate::config::File;
use crate::local;

/// Where the program lies inside of the sandbox.
const PROGRAM: &str = "/.berth-probe";
/// Seconds that the probe may take.
const WITHIN: i64 = 30;
/// What probe and sandbox record call by the same name and tell in the same form.
const SHARED: [&str; 5] = [
    "capabilities",
    "no_new_privs",
    "groups",
    "cwd",
    "oom_score_adj",
];

type Cri = RuntimeServiceClient<Channel>;

/// Flags of `berth audit probe`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    local: local::Options,
    /// An image that is on this node already (`berth ps`, crictl images)
    image: String,
}

/// Prints what the probe reports, and whether the log's record of it says the same.
pub fn run(options: &Options, file: &File) -> anyhow::Result<()> {
    let (container, report) = local::ask(async {
        let mut cri = local::connect(&options.local.cri_socket).await?;
        let pod = pod();
        let request = cri::RunPodSandboxRequest {
            config: Some(pod.clone()),
            runtime_handler: String::new(),
        };
        let sandbox = cri.run_pod_sandbox(request).await?.into_inner();
        let id = sandbox.pod_sandbox_id;
        let reported = look(&mut cri, &id, &pod, &options.image).await;
        let removed = remove(&mut cri, &id).await;
        let reported = reported?;
        removed.context("the sandbox of the probe stays")?;
        Ok(reported)
    })?;
    println!("{report:#}");
    let mut recorded = Value::Null;
    each_entry(&options.place.folder(file), |entry, _| {
        if entry.kind == Kind::Exec && entry.subject.container_id == container {
            recorded = record(&entry);
        }
        Ok(())
    })?;
    let Value::Object(fields) = &recorded["fields"] else {
        eprintln!("berth: the audit log has no sandbox record of the probe to compare with");
        return Ok(());
    };
    for name in SHARED {
        let applied = fields
            .get(name)
            .map_or(&Value::Null, |field| &field["applied"]);
        ensure!(
            *applied == report[name],
            "the audit log and the probe differ in `{name}`: {applied} and {}",
            report[name]
        );
    }
    eprintln!("berth: the audit log says the same: {}", SHARED.join(", "));
    Ok(())
}

fn pod() -> cri::PodSandboxConfig {
    let name = format!("berth-audit-probe-{}", std::process::id());
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "berth-audit".to_owned(),
            attempt: 0,
        }),
        hostname: "probe".to_owned(),
        ..Default::default()
    }
}

/// Executes the probe in a container of `sandbox`; the container and what the probe printed.
async fn look(
    cri: &mut Cri,
    sandbox: &str,
    pod: &cri::PodSandboxConfig,
    image: &str,
) -> anyhow::Result<(String, Value)> {
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: sandbox.to_owned(),
        config: Some(container(image)?),
        sandbox_config: Some(pod.clone()),
    };
    let container_id = cri
        .create_container(request)
        .await?
        .into_inner()
        .container_id;
    let request = cri::StartContainerRequest {
        container_id: container_id.clone(),
    };
    cri.start_container(request).await?;
    let request = cri::ExecSyncRequest {
        container_id: container_id.clone(),
        cmd: vec![PROGRAM.to_owned(), "probe".to_owned()],
        timeout: WITHIN,
    };
    let output = cri.exec_sync(request).await?.into_inner();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.exit_code == 0, "the probe failed: {}", said.trim());
    let report = serde_json::from_slice(&output.stdout).context("the probe printed no JSON")?;
    Ok((container_id, report))
}

/// A container as a plain pod's, with the runtime's default seccomp profile.
fn container(image: &str) -> anyhow::Result<cri::ContainerConfig> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let program: PathBuf = own.with_file_name("berth-oci");
    let profile = cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    };
    let security = cri::LinuxContainerSecurityContext {
        seccomp: Some(profile),
        ..Default::default()
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "probe".to_owned(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: image.to_owned(),
            ..Default::default()
        }),
        command: [PROGRAM, "probe", "hold"].map(str::to_owned).to_vec(),
        mounts: vec![cri::Mount {
            container_path: PROGRAM.to_owned(),
            host_path: program.display().to_string(),
            readonly: true,
            ..Default::default()
        }],
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    })
}

async fn remove(cri: &mut Cri, sandbox: &str) -> anyhow::Result<()> {
    let pod_sandbox_id = sandbox.to_owned();
    let request = cri::StopPodSandboxRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
    };
    cri.stop_pod_sandbox(request).await?;
    cri.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id })
        .await?;
    Ok(())
}
