//! RunPodSandbox, stage by stage. Each stage is a type that only the one before it can
//! make; each stores what it is about to do before it does it, so that
//! [`crate::sandbox::recover`] can tell what may exist.
//!
//! ```text
//! Reserved ──start──▶ Started ──connect──▶ Connected ──finish──▶ ready
//!     └──────────────────┴──────────────────────┴── fail: everything undone, by the way of stop
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use berth_monitor::protocol::{PodConfig, Reply, Request};
use berth_oci::cgroup::{Cgroup, CgroupError};
use berth_proto::cri;
use berth_sys::crash_point;

use crate::id::SandboxId;
use crate::monitor::{self, MonitorError};
use crate::record::{self, RecordError};
use crate::sandbox::model::{Phase, PodCgroup, RECORD_VERSION, SandboxRecord};
use crate::sandbox::network::{self, NetworkError};
use crate::sandbox::shm::{self, ShmError};
use crate::sandbox::{stop, sysctl, watch};
use crate::server::Server;
use crate::store::Taken;
use crate::time;

/// The pause process is among the last to be killed (what the kubelet gives sandboxes).
const PAUSE_OOM_SCORE_ADJ: i64 = -998;
/// Longest host name of the kernel, in bytes (sethostname(2)).
const MAX_HOSTNAME: usize = 64;

/// Why a sandbox was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateSandboxError {
    /// A field is missing or makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path of the field in the request.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The field is not honoured by this version.
    #[error("{field}: {reason}")]
    Unsupported {
        /// Path of the field in the request.
        field: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// No such RuntimeClass handler.
    #[error("no runtime for the handler `{0}` is configured")]
    NoRuntime(String),
    /// Another sandbox has the name.
    #[error("the name `{name}` is taken by the sandbox `{holder}` ({step}, for {age_seconds}s)")]
    NameTaken {
        /// The reserved name.
        name: String,
        /// Who has it.
        holder: SandboxId,
        /// How far the holder is.
        step: String,
        /// Since when.
        age_seconds: i64,
    },
    /// A record or file of the pod cannot be written.
    #[error("cannot record the sandbox")]
    Record(#[from] RecordError),
    /// Its shared memory cannot be made.
    #[error("cannot make the shared memory of the pod")]
    Shm(#[from] ShmError),
    /// The pod's cgroup cannot be made.
    #[error("cannot make the cgroup of the pod")]
    Cgroup(#[source] CgroupError),
    /// The monitor failed.
    #[error("cannot start the pod's namespaces")]
    Monitor(#[from] MonitorError),
    /// The network failed.
    #[error("cannot connect the pod to the network")]
    Network(#[from] NetworkError),
    /// Someone stopped it meanwhile.
    #[error("the sandbox was removed while it was created")]
    Removed,
}

/// Makes the sandbox `config` asks for, or gives the one it asked for before.
pub async fn create(
    server: Arc<Server>,
    config: cri::PodSandboxConfig,
    handler: String,
) -> Result<SandboxId, CreateSandboxError> {
    check(&server, &config, &handler)?;
    let reserved = match Reserved::reserve(server, config, handler)? {
        Reservation::New(reserved) => reserved,
        Reservation::Existing(id) => return Ok(id),
    };
    let started = reserved.start().await?;
    let connected = started.connect().await?;
    connected.finish().await
}

fn check(
    server: &Server,
    config: &cri::PodSandboxConfig,
    handler: &str,
) -> Result<(), CreateSandboxError> {
    let invalid = |field, reason: &str| {
        Err(CreateSandboxError::Invalid {
            field,
            reason: reason.to_owned(),
        })
    };
    let Some(metadata) = &config.metadata else {
        return invalid("metadata", "is required");
    };
    if metadata.name.is_empty() || metadata.uid.is_empty() {
        return invalid("metadata", "name and uid are required");
    }
    if config.hostname.len() > MAX_HOSTNAME {
        return invalid("hostname", "is longer than 64 bytes");
    }
    if !server.config.runtimes.contains_key(handler) {
        return Err(CreateSandboxError::NoRuntime(handler.to_owned()));
    }
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let options = security.namespace_options.unwrap_or_default();
    if let Some(users) = &options.userns_options
        && (users.mode() != cri::NamespaceMode::Node && !users.uids.is_empty()
            || matches!(
                users.mode(),
                cri::NamespaceMode::Container | cri::NamespaceMode::Target
            ))
    {
        return Err(CreateSandboxError::Unsupported {
            field: "linux.security_context.namespace_options.userns_options",
            reason: "user namespaces are not supported",
        });
    }
    if security
        .selinux_options
        .is_some_and(|options| options != Default::default())
    {
        return Err(CreateSandboxError::Unsupported {
            field: "linux.security_context.selinux_options",
            reason: "SELinux labels are not supported",
        });
    }
    sysctl::check(&linux.sysctls, &options).map_err(|reason| CreateSandboxError::Invalid {
        field: "linux.sysctls",
        reason,
    })
}

enum Reservation {
    New(Reserved),
    Existing(SandboxId),
}

/// The name is taken and recorded; nothing else exists.
struct Reserved {
    server: Arc<Server>,
    id: SandboxId,
}

/// Monitor, cgroup and namespaces exist.
struct Started {
    server: Arc<Server>,
    id: SandboxId,
}

/// The pod is on its network.
struct Connected {
    server: Arc<Server>,
    id: SandboxId,
}

impl Reserved {
    fn reserve(
        server: Arc<Server>,
        config: cri::PodSandboxConfig,
        handler: String,
    ) -> Result<Reservation, CreateSandboxError> {
        let id = SandboxId::random();
        let record = SandboxRecord {
            version: RECORD_VERSION,
            boot_id: server.boot_id.clone(),
            id: id.clone(),
            phase: Phase::Reserved,
            created_at: time::now(),
            cgroup: pod_cgroup(&server, &config, &id)?,
            config,
            runtime_handler: handler,
            attached: None,
            pause_pid: 0,
        };
        match server.sandboxes.reserve(record.clone())? {
            Ok(()) => {
                crash_point!("run sandbox: name reserved");
                Ok(Reservation::New(Reserved { server, id }))
            }
            // The first call made it and its answer was lost.
            Err(Taken(holder)) if same(&holder, &record) => {
                Ok(Reservation::Existing(holder.id.clone()))
            }
            Err(Taken(holder)) => Err(CreateSandboxError::NameTaken {
                name: SandboxRecord::name(&record.config),
                holder: holder.id.clone(),
                step: format!("{:?}", holder.phase),
                age_seconds: (time::now() - holder.created_at) / 1_000_000_000,
            }),
        }
    }

    async fn start(self) -> Result<Started, CreateSandboxError> {
        let Reserved { server, id } = self;
        match start(&server, &id).await {
            Ok(()) => Ok(Started { server, id }),
            Err(error) => Err(fail(&server, &id, error).await),
        }
    }
}

impl Started {
    async fn connect(self) -> Result<Connected, CreateSandboxError> {
        let Started { server, id } = self;
        match connect(&server, &id).await {
            Ok(()) => Ok(Connected { server, id }),
            Err(error) => Err(fail(&server, &id, error).await),
        }
    }
}

impl Connected {
    async fn finish(self) -> Result<SandboxId, CreateSandboxError> {
        let Connected { server, id } = self;
        let updated = server
            .sandboxes
            .update(&id, |record| record.phase = Phase::Ready);
        match updated {
            Ok(Some(_)) => {}
            Ok(None) => return Err(CreateSandboxError::Removed),
            Err(error) => return Err(fail(&server, &id, error.into()).await),
        }
        crash_point!("run sandbox: made");
        watch::start(&server, &id);
        for kind in [
            cri::ContainerEventType::ContainerCreatedEvent,
            cri::ContainerEventType::ContainerStartedEvent,
        ] {
            server.emit(&id, id.as_str(), kind);
        }
        Ok(id)
    }
}

/// Undoes whatever the recorded phase says may exist, by the same steps as a stop.
async fn fail(
    server: &Arc<Server>,
    id: &SandboxId,
    error: CreateSandboxError,
) -> CreateSandboxError {
    match stop::stop(server, id).await {
        Ok(()) => {
            if let Err(left) = server.sandboxes.remove(id) {
                tracing::warn!(sandbox = %id, error = %crate::status::chain(&left), "record stays");
            }
        }
        // It stays listed as not ready, so that the client removes it.
        Err(left) => {
            tracing::warn!(sandbox = %id, error = %crate::status::chain(&left), "undo is incomplete");
        }
    }
    error
}

fn same(holder: &SandboxRecord, asked: &SandboxRecord) -> bool {
    holder.phase == Phase::Ready
        && holder.config == asked.config
        && holder.runtime_handler == asked.runtime_handler
}

fn pod_cgroup(
    server: &Server,
    config: &cri::PodSandboxConfig,
    id: &SandboxId,
) -> Result<PodCgroup, CreateSandboxError> {
    let parent = config
        .linux
        .as_ref()
        .map_or("", |linux| linux.cgroup_parent.as_str());
    if parent.split('/').any(|part| part == ".." || part == ".") {
        let reason = format!("`{parent}` is not a plain path");
        return Err(CreateSandboxError::Invalid {
            field: "linux.cgroup_parent",
            reason,
        });
    }
    let parent = parent.trim_matches('/');
    if parent.is_empty() {
        let path = format!("{}/pod{id}", server.config.cgroup_root);
        return Ok(PodCgroup {
            path: path.trim_matches('/').into(),
            owned: true,
        });
    }
    // Without a kubelet several pods may name one parent: monitors must not meet there.
    Ok(PodCgroup {
        path: parent.into(),
        owned: false,
    })
}

async fn start(server: &Arc<Server>, id: &SandboxId) -> Result<(), CreateSandboxError> {
    let starting = server
        .sandboxes
        .update(id, |record| record.phase = Phase::Starting)?;
    let record = starting.ok_or(CreateSandboxError::Removed)?;
    crash_point!("run sandbox: start recorded");
    let dir = server.sandboxes.dir(id);
    write_files(&record, &dir)?;
    crash_point!("run sandbox: files written");
    // With the host's IPC namespace goes the host's /dev/shm.
    if record.namespaces().ipc() != cri::NamespaceMode::Node {
        shm::mount(&dir)?;
        crash_point!("run sandbox: shared memory mounted");
    }
    let leaf = record.leaf_cgroup();
    Cgroup::create(&server.cgroups, &leaf).map_err(CreateSandboxError::Cgroup)?;
    crash_point!("run sandbox: cgroup made");
    let program = &server.monitor_program;
    let monitor = monitor::spawn(program, &dir, &leaf, &server.monitors).await?;
    crash_point!("run sandbox: monitor started");
    let reply = monitor
        .call(Request::StartPod(pod_config(server, &record)))
        .await?;
    let Reply::PodStarted { pause_pid } = reply else {
        return Err(MonitorError::Unexpected.into());
    };
    crash_point!("run sandbox: namespaces made");
    let started = server.sandboxes.update(id, |record| {
        record.pause_pid = pause_pid;
    })?;
    crash_point!("run sandbox: namespaces recorded");
    started.map(drop).ok_or(CreateSandboxError::Removed)
}

async fn connect(server: &Arc<Server>, id: &SandboxId) -> Result<(), CreateSandboxError> {
    let record = server
        .sandboxes
        .get(id)
        .ok_or(CreateSandboxError::Removed)?;
    if record.host_network() {
        return Ok(());
    }
    let plan = server.network.plan(&record)?;
    let recorded = server.sandboxes.update(id, |record| {
        record.phase = Phase::Networking;
        record.attached = Some(plan.clone());
    })?;
    recorded.ok_or(CreateSandboxError::Removed)?;
    crash_point!("run sandbox: attachment planned");
    let attached = server.network.attach(&plan).await?;
    crash_point!("run sandbox: network attached");
    let hosts = network::hosts(&record.config.hostname, &attached.addresses);
    write_file(&server.sandboxes.dir(id).join("hosts"), &hosts)?;
    let recorded = server
        .sandboxes
        .update(id, |record| record.attached = Some(attached))?;
    crash_point!("run sandbox: addresses recorded");
    recorded.map(drop).ok_or(CreateSandboxError::Removed)
}

/// The files every container of the pod sees, and the directory of its /dev/shm.
fn write_files(record: &SandboxRecord, dir: &Path) -> Result<(), RecordError> {
    let host =
        |path: &str| std::fs::read_to_string(path).map_err(record::io("read", Path::new(path)));
    let hostname = match record.config.hostname.as_str() {
        name if !name.is_empty() && !record.host_network() => format!("{name}\n"),
        _ => host("/proc/sys/kernel/hostname")?,
    };
    let hosts = match record.host_network() {
        true => host("/etc/hosts").unwrap_or_else(|_| network::hosts("", &[])),
        false => network::hosts("", &[]),
    };
    let resolv_conf = match network::resolv_conf(record.config.dns_config.as_ref()) {
        Some(text) => text,
        None => host("/etc/resolv.conf").unwrap_or_default(),
    };
    for (name, text) in [
        ("hostname", hostname),
        ("hosts", hosts),
        ("resolv.conf", resolv_conf),
    ] {
        write_file(&dir.join(name), &text)?;
    }
    record::make_dir(&dir.join(shm::NAME))
}

fn write_file(path: &Path, text: &str) -> Result<(), RecordError> {
    record::write(path, text.as_bytes())?;
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path, readable).map_err(record::io("make readable", path))
}

fn pod_config(server: &Server, record: &SandboxRecord) -> PodConfig {
    use cri::NamespaceMode::{Node, Pod};
    let options = record.namespaces();
    let own_network = options.network() != Node;
    let floor = server.privileges.oom_score_floor.unwrap_or(i64::MIN);
    let linux = record.config.linux.clone().unwrap_or_default();
    PodConfig {
        pause: server.config.pause_path.clone(),
        hostname: if own_network {
            record.config.hostname.clone()
        } else {
            String::new()
        },
        net: own_network,
        ipc: options.ipc() != Node,
        uts: own_network,
        pid: options.pid() == Pod,
        sysctls: linux.sysctls.into_iter().collect(),
        cgroup: None,
        oom_score_adj: i32::try_from(PAUSE_OOM_SCORE_ADJ.max(floor)).ok(),
    }
}
