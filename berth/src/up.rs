//! `berth up`: control plane and node of one machine in one process.

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tracing::info;

use crate::config::{ConfigError, File};
use crate::node::{Node, Plan};
use crate::server::{self, ControlPlane};
use crate::signals::{End, Signals};
use crate::{clients, cri, host, kubelet};

/// Flags of `berth up`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    /// Directory of everything that survives a restart
    ///
    /// The kubeconfig of the administrator is admin.conf in it; `cri`, `images`, `kubelet` and
    /// `server` are made there unless the configuration names other places.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth")]
    data_dir: PathBuf,
    /// Delete the data directory and the audit log after SIGINT
    #[arg(long)]
    rm: bool,
    /// Start although cgroup v2 lacks the cpu, memory or pids controller here
    ///
    /// CPU, memory and process limits of pods are then not enforced, and nothing is ever reported
    /// as OOMKilled.
    #[arg(long)]
    allow_degraded_cgroups: bool,
    #[command(flatten)]
    server: server::Options,
    #[command(flatten)]
    kubelet: kubelet::Options,
}

/// The flags of a kubelet as they mean it here.
pub fn adapt(command: clap::Command) -> clap::Command {
    command
        .mut_arg("kubeconfig", |arg| arg.hide(true))
        .mut_arg("static_pod_dir", |arg| {
            arg.help("Directory of static pod manifests [default: /etc/berth/manifests]")
        })
}

/// A cluster on one machine.
struct Cluster {
    node: Node,
    plane: ControlPlane,
}

/// Runs until SIGINT (removes all pods) or SIGTERM (leaves them).
pub fn run(options: Options, file: File) -> anyhow::Result<()> {
    host::demand_root("up")?;
    if options.kubelet.kubeconfig.is_some() {
        let reason =
            "--kubeconfig: `berth up` runs its own control plane; `berth node` joins another";
        return Err(ConfigError::Value(reason.into()).into());
    }
    clients::install_crypto();
    host::runtime()?.block_on(async {
        let mut signals = Signals::take()?;
        let cluster = tokio::select! {
            cluster = start(&options, file) => cluster?,
            end = signals.wait() => anyhow::bail!("ended by a signal while starting ({end:?})"),
        };
        let failed = cluster.node.failed.clone();
        let audit_dir = cluster.node.audit_dir();
        let end = tokio::select! {
            end = signals.wait() => end,
            () = failed.cancelled() => End::Leave,
        };
        if end == End::Remove {
            println!("removing all pods (once more to leave at once)");
        }
        signals
            .unless_interrupted(async {
                let stopped = cluster.node.stop(end).await;
                cluster.plane.stop().await;
                stopped
            })
            .await??;
        anyhow::ensure!(!failed.is_cancelled(), "a part of the node failed");
        if end == End::Remove && options.rm {
            // The key that verifies the audit log goes with the data: the log goes too.
            for dir in [&audit_dir, &options.data_dir] {
                delete(dir)?;
            }
            // Made with the default folder of the log, and kept where others use it.
            let _ = std::fs::remove_dir("/var/log/berth");
        }
        Ok(())
    })
}

fn delete(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete `{}`", dir.display()))
        }
        _ => Ok(()),
    }
}

async fn start(options: &Options, mut file: File) -> anyhow::Result<Cluster> {
    let data = &options.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .with_context(|| format!("cannot make the data directory `{}`", data.display()))?;
    if options.allow_degraded_cgroups {
        eprintln!(
            "berth: --allow-degraded-cgroups: where cgroup v2 has no controllers, CPU, memory and \
             process limits are NOT enforced on this machine"
        );
    }
    file.cri.data_dir.get_or_insert_with(|| data.join("cri"));
    file.cri
        .images
        .root
        .get_or_insert_with(|| data.join("images"));
    file.kubelet
        .root_dir
        .get_or_insert_with(|| data.join("kubelet"));
    file.server
        .data_dir
        .get_or_insert_with(|| data.join("server"));
    let cri = cri::Options {
        socket: options.kubelet.cri_socket.clone(),
        allow_degraded_cgroups: options.allow_degraded_cgroups,
    }
    .resolve(&file)?;
    let mut raw = options.kubelet.raw(&file, options.allow_degraded_cgroups);
    raw.cri_socket = Some(cri.socket.clone());
    raw.static_pod_dir
        .get_or_insert_with(|| "/etc/berth/manifests".into());
    let name = kubelet::resolve(raw.clone())?.node_name;
    raw.node_name = Some(name.clone());
    let mut server = options.server.resolve(&file.server);
    server.node_names.push(name.clone());
    let dns = IpAddr::from(server.cluster_dns);
    raw.cluster_dns = vec![dns];
    raw.node_ip.get_or_insert(server.advertise_address);
    let plane = ControlPlane::start(server).await?;
    let admin = data.join("admin.conf");
    server::publish_admin(&plane.kubeconfigs, &admin)?;
    let plan = Plan {
        kubelet: kubelet::resolve(with_identity(raw, &plane, &name, data)?)?,
        cri,
        dns,
    };
    let node = Node::start(plan).await?;
    info!(node = name, "up");
    greet(&admin, &name);
    Ok(Cluster { node, plane })
}

/// Gives the kubelet its kubeconfig, its serving certificate and the CA of its clients.
fn with_identity(
    mut raw: berth_kubelet::RawConfig,
    plane: &ControlPlane,
    name: &str,
    data: &Path,
) -> anyhow::Result<berth_kubelet::RawConfig> {
    let dir = raw
        .root_dir
        .clone()
        .unwrap_or_else(|| data.join("kubelet"))
        .join("pki");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot make `{}`", dir.display()))?;
    let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into()];
    addresses.extend(raw.node_ip);
    let pair = plane
        .pki
        .issue_serving(
            &format!("system:node:{name}"),
            &[name.to_owned(), "localhost".into()],
            &addresses,
        )
        .context("cannot issue the kubelet's serving certificate")?;
    let write = |file: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = dir.join(file);
        host::write_private(&path, text.as_bytes())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(path)
    };
    raw.tls_cert = Some(write("kubelet.crt", &pair.cert_pem)?);
    raw.tls_key = Some(write("kubelet.key", &pair.key_pem)?);
    raw.client_ca = Some(write("ca.crt", plane.pki.ca_pem())?);
    raw.kubeconfig = Some(plane.kubeconfigs.join(format!("node-{name}.conf")));
    Ok(raw)
}

fn greet(admin: &Path, node: &str) {
    println!("berth: node {node} is starting");
    println!("kubeconfig: {}", admin.display());
    println!();
    println!("  export KUBECONFIG={}", admin.display());
    println!("  kubectl get nodes");
    println!("  kubectl run hello --image=IMAGE");
    println!();
    println!("SIGINT removes all pods and ends; SIGTERM ends and leaves them running.");
}
