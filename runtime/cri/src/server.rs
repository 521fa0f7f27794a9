//! What all RPCs share, and the life of the server: start, serve, drain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_image::ImageStore;
use berth_oci::cgroup;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::config::Config;
use crate::container::create::CreateContainerError;
use crate::container::model::ContainerRecord;
use crate::container::oci_spec;
use crate::container::start::StartContainerError;
use crate::events::EventLog;
use crate::id::{ContainerId, SandboxId};
use crate::inflight::InFlight;
use crate::journal::Journal;
use crate::monitor::{Monitor, Program};
use crate::record::{self, RecordError};
use crate::sandbox::create::CreateSandboxError;
use crate::sandbox::model::SandboxRecord;
use crate::sandbox::network::{Network, NetworkError};
use crate::sandbox::remove::RemoveSandboxError;
use crate::sandbox::stop::StopSandboxError;
use crate::stats::CpuSamples;
use crate::store::{Store, Stored};
use crate::streaming::Sessions;

/// Controllers without which limits of pods mean nothing.
const NEEDED_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// How long running operations may take once the server ends: longer than a monitor's start.
/// The next start repairs what they leave.
const DRAIN_WITHIN: Duration = Duration::from_secs(15);

/// Why the server does not start or ends early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// cgroup v2 is missing.
    #[error("cannot use cgroup v2")]
    Cgroups(#[source] cgroup::CgroupError),
    /// cgroup v2 has no controllers and nobody allowed that.
    #[error(
        "cgroup v2 lacks the controllers {0}: limits would not be enforced \
         (allow_degraded_cgroups starts anyway)"
    )]
    Controllers(String),
    /// A directory or record cannot be used.
    #[error("cannot prepare the state of the server")]
    Record(#[from] RecordError),
    /// The monitor's program cannot be used.
    #[error("cannot open the monitor's program `{path}`")]
    Program {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The image store cannot be opened.
    #[error("cannot open the image store")]
    Images(#[from] berth_image::OpenError),
    /// The network configuration cannot be used.
    #[error("cannot set up the pod network")]
    Network(#[from] NetworkError),
    /// The socket cannot be served.
    #[error("cannot serve on `{address}`")]
    Listen {
        /// The socket's path or address.
        address: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The transport failed.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// A pod cannot be removed.
    #[error("cannot remove the sandbox `{sandbox}`")]
    Remove {
        /// Its identifier.
        sandbox: SandboxId,
        /// Why.
        #[source]
        source: RemoveSandboxError,
    },
}

/// The shared state of all RPCs.
pub struct Server {
    /// What it was told.
    pub config: Config,
    /// This boot.
    pub boot_id: String,
    /// The cgroup2 hierarchy.
    pub cgroups: cgroup::Host,
    /// What this process may hand on.
    pub privileges: Privileges,
    /// What monitors are started from.
    pub monitor_program: Program,
    /// Pod sandboxes.
    pub sandboxes: Store<SandboxRecord>,
    /// Containers.
    pub containers: Store<ContainerRecord>,
    /// Images and snapshots.
    pub images: ImageStore,
    /// What was started, executed, changed and pulled.
    pub audit: Arc<Audit>,
    /// The pod network.
    pub network: Network,
    /// What happened, for GetContainerEvents.
    pub events: EventLog,
    /// Streaming sessions handed out and not yet used.
    pub streams: Sessions,
    /// Last CPU readings, for rates.
    pub cpu_samples: CpuSamples,
    /// Durable records.
    pub journal: Arc<Journal>,
    /// Every task of the server.
    pub tasks: TaskTracker,
    /// Tasks that only wait for a monitor's end: left alone when the server ends.
    pub monitors: TaskTracker,
    /// Cancelled when the server is to end.
    pub ending: CancellationToken,
    /// Running operations, joined by retries.
    pub running: Running,
    /// Pod CIDR told by the kubelet, when it did.
    pub pod_cidr: Mutex<Option<String>>,
}

/// Operations that outlive the call that started them.
pub struct Running {
    /// By reserved name.
    pub create_sandbox: InFlight<String, Result<SandboxId, Arc<CreateSandboxError>>>,
    /// By sandbox.
    pub stop_sandbox: InFlight<SandboxId, Result<(), Arc<StopSandboxError>>>,
    /// By reserved name.
    pub create_container: InFlight<String, Result<ContainerId, Arc<CreateContainerError>>>,
    /// By container.
    pub start_container: InFlight<ContainerId, Result<(), Arc<StartContainerError>>>,
}

/// What this process may hand on to containers.
#[derive(Debug)]
pub struct Privileges {
    /// Its bounding set, as `CAP_` names.
    pub bounding: BTreeSet<String>,
    /// The lowest oom_score_adj it can set; None when any.
    pub oom_score_floor: Option<i64>,
    /// Whether AppArmor is enabled in the kernel.
    pub apparmor: bool,
}

impl Privileges {
    fn probe() -> Result<Self, RecordError> {
        let read =
            |path: &str| std::fs::read_to_string(path).map_err(record::io("read", Path::new(path)));
        let bounding = oci_spec::bounding_set(&read("/proc/self/status")?);
        let own: i64 = read("/proc/self/oom_score_adj")?
            .trim()
            .parse()
            .unwrap_or(0);
        let apparmor = read("/sys/module/apparmor/parameters/enabled");
        Ok(Privileges {
            oom_score_floor: (!bounding.contains("CAP_SYS_RESOURCE")).then_some(own),
            apparmor: apparmor.is_ok_and(|text| text.trim() == "Y"),
            bounding,
        })
    }
}

impl Server {
    /// Prepares everything but the sockets; nothing is recovered yet.
    pub fn open(config: Config, streams: Sessions) -> Result<Arc<Server>, ServeError> {
        let cgroups = cgroup::Host::probe().map_err(ServeError::Cgroups)?;
        let missing: Vec<&str> = NEEDED_CONTROLLERS
            .into_iter()
            .filter(|name| !cgroups.controllers.contains(*name))
            .collect();
        if !missing.is_empty() && !config.allow_degraded_cgroups {
            return Err(ServeError::Controllers(missing.join(", ")));
        }
        let path = &config.monitor_path;
        let opened = Program::open(path);
        let monitor_program = opened.map_err(|source| ServeError::Program {
            path: path.clone(),
            source,
        })?;
        for dir in [
            config.state_dir.join("pods"),
            config.state_dir.join("containers"),
        ] {
            record::make_dir(&dir)?;
        }
        let kinds = [SandboxRecord::JOURNAL_KIND, ContainerRecord::JOURNAL_KIND];
        let journal = Arc::new(Journal::open(&config.data_dir, &kinds)?);
        let mut images = berth_image::Config::new(&config.images.root, &config.images.hosts_dir);
        images.max_parallel = config.images.max_parallel;
        let tasks = TaskTracker::new();
        Ok(Arc::new(Server {
            boot_id: record::boot_id()?,
            cgroups,
            privileges: Privileges::probe()?,
            monitor_program,
            sandboxes: Store::new(&config.state_dir, journal.clone()),
            containers: Store::new(&config.state_dir, journal.clone()),
            images: ImageStore::open(images)?,
            audit: Arc::new(Audit::new(config.audit.clone())),
            network: Network::new(config.cni.clone())?,
            events: EventLog::new(),
            streams,
            cpu_samples: CpuSamples::default(),
            journal,
            running: Running {
                create_sandbox: InFlight::new(tasks.clone()),
                stop_sandbox: InFlight::new(tasks.clone()),
                create_container: InFlight::new(tasks.clone()),
                start_container: InFlight::new(tasks.clone()),
            },
            tasks,
            monitors: TaskTracker::new(),
            ending: CancellationToken::new(),
            pod_cidr: Mutex::new(None),
            config,
        }))
    }

    /// The monitor of a sandbox.
    pub fn monitor(&self, sandbox: &SandboxId) -> Monitor {
        Monitor::at(&self.sandboxes.dir(sandbox))
    }

    /// Limits this host cannot enforce, by controller; empty with full cgroup v2.
    pub fn missing_controllers(&self) -> BTreeMap<&'static str, &'static str> {
        let lacking = NEEDED_CONTROLLERS
            .into_iter()
            .filter(|name| !self.cgroups.controllers.contains(*name));
        lacking
            .map(|name| (name, "not available in cgroup v2 on this host"))
            .collect()
    }

    /// Ends every task that waits for something, and waits a little for those that work.
    pub async fn drain(&self) {
        self.ending.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(DRAIN_WITHIN, self.tasks.wait()).await;
        let journal = self.journal.clone();
        let audit = self.audit.clone();
        let ended = move || {
            journal.commit();
            audit.close();
        };
        let _ = tokio::task::spawn_blocking(ended).await;
    }
}
