//! CreateContainer: the record, the snapshot and the OCI configuration; no process.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_image::{
    Image, LookupError, Principal, ResolvedUser, SnapshotError, UserSpec, UserSpecError,
};
use berth_monitor::protocol::Rootfs;
use berth_oci::capability::{self, CapabilitySet};
use berth_oci::spec::config::LinuxSeccomp;
use berth_proto::cri;
use berth_sys::crash_point;
use serde_json::Value;

use crate::container::model::{ContainerRecord, RECORD_VERSION, State, User};
use crate::container::oci_spec::{
    self, HostDevice, HostInput, PodInput, SeccompSource, SpecError, SpecInput,
};
use crate::container::signal;
use crate::id::ContainerId;
use crate::record::{self, RecordError};
use crate::sandbox::model::{Phase, SandboxRecord};
use crate::server::Server;
use crate::store::Taken;
use crate::time;
use crate::undo::Undo;

/// The OCI configuration in a container's directory.
pub const CONFIG_NAME: &str = "config.json";

/// Why a container was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateContainerError {
    /// A field is missing or makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path of the field in the request.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The sandbox does not run.
    #[error("the sandbox `{sandbox}` is not ready ({phase})")]
    NotReady {
        /// The sandbox.
        sandbox: String,
        /// How far it is.
        phase: String,
    },
    /// Another container has the name.
    #[error("the name `{name}` is taken by the container `{holder}` for {age_seconds}s")]
    NameTaken {
        /// The reserved name.
        name: String,
        /// Who has it.
        holder: ContainerId,
        /// Since when.
        age_seconds: i64,
    },
    /// The image is not there.
    #[error("image `{0}` not found")]
    NoImage(String),
    /// The user cannot be parsed.
    #[error("the user of the container is malformed")]
    UserSpec(#[source] UserSpecError),
    /// The user is not in the image.
    #[error("cannot look up the user of the container")]
    User(#[source] LookupError),
    /// A source of a mount is not there.
    #[error("mounts[{index}].host_path: cannot use `{path}`")]
    MountSource {
        /// Which mount of the request.
        index: usize,
        /// Its source.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The request cannot be turned into an OCI configuration.
    #[error("cannot make the configuration of the container")]
    Spec(#[source] SpecError),
    /// The writable layer cannot be made.
    #[error("cannot make the root file system of the container")]
    Snapshot(#[source] SnapshotError),
    /// A record or file cannot be written.
    #[error("cannot record the container")]
    Record(#[from] RecordError),
    /// It was removed meanwhile.
    #[error("the container was removed while it was created")]
    Removed,
}

/// Creates the container `config` asks for in `sandbox`, or gives the one it asked for
/// before.
pub async fn create(
    server: Arc<Server>,
    sandbox: Arc<SandboxRecord>,
    config: cri::ContainerConfig,
) -> Result<ContainerId, CreateContainerError> {
    check_ready(&sandbox)?;
    let image = find_image(&server, &config)?;
    let user = look_up_user(&server, &image, &config).await?;
    let record = record_of(&server, &sandbox, config, &image, &user)?;
    let id = record.id.clone();
    match server.containers.reserve(record.clone())? {
        Ok(()) => {}
        // The first call made it and its answer was lost.
        Err(Taken(holder)) if holder.state == State::Created && holder.config == record.config => {
            return Ok(holder.id.clone());
        }
        Err(Taken(holder)) => {
            return Err(CreateContainerError::NameTaken {
                name: ContainerRecord::name(&record.sandbox, &record.config),
                holder: holder.id.clone(),
                age_seconds: (time::now() - holder.created_at) / 1_000_000_000,
            });
        }
    }
    let mut undo = Undo::new();
    match fill(&server, &sandbox, &record, &image, &user, &mut undo).await {
        Ok(()) => {
            undo.commit();
            let kind = cri::ContainerEventType::ContainerCreatedEvent;
            server.emit(&sandbox.id, id.as_str(), kind);
            Ok(id)
        }
        Err(error) => {
            for failure in undo.run().await {
                tracing::warn!(container = %id, %failure, "undo is incomplete");
            }
            Err(error)
        }
    }
}

fn check_ready(sandbox: &SandboxRecord) -> Result<(), CreateContainerError> {
    if sandbox.phase == Phase::Ready {
        return Ok(());
    }
    Err(CreateContainerError::NotReady {
        sandbox: sandbox.id.to_string(),
        phase: format!("{:?}", sandbox.phase),
    })
}

/// What follows the reservation: snapshot, configuration, and the record of both.
async fn fill(
    server: &Arc<Server>,
    sandbox: &SandboxRecord,
    record: &ContainerRecord,
    image: &Image,
    user: &ResolvedUser,
    undo: &mut Undo,
) -> Result<(), CreateContainerError> {
    let id = record.id.clone();
    let (owner, name) = (server.clone(), id.clone());
    undo.push("forget the container", move || async move {
        owner.containers.remove(&name)
    });
    crash_point!("create container: name reserved");
    // Anew: whoever stops the sandbox marks it and then looks for its containers, so that
    // one of us sees the other.
    let sandbox = server.sandboxes.get(&sandbox.id);
    let sandbox = sandbox.ok_or(CreateContainerError::Removed)?;
    check_ready(&sandbox)?;
    let spec = spec(server, &sandbox, record, image, user)?;
    let bytes = record::bytes(&spec);
    record::write(&server.containers.dir(&id).join(CONFIG_NAME), &bytes)?;
    crash_point!("create container: configuration written");

    let (images, key) = (server.images.clone(), id.to_string());
    undo.push("remove the snapshot", move || async move {
        images.remove_snapshot(&key).await
    });
    let layers = server.images.prepare(id.as_str(), &image.id).await;
    let layers = layers.map_err(CreateContainerError::Snapshot)?;
    crash_point!("create container: snapshot made");
    let created = server.containers.update(&id, |record| {
        record.state = State::Created;
        record.rootfs = Rootfs::Overlay {
            lower: layers.lower,
            upper: layers.upper,
            work: layers.work,
            readonly: false,
        };
    })?;
    crash_point!("create container: recorded");
    created.map(drop).ok_or(CreateContainerError::Removed)
}

fn find_image(
    server: &Server,
    config: &cri::ContainerConfig,
) -> Result<Image, CreateContainerError> {
    let name = config
        .image
        .as_ref()
        .map(|image| image.image.clone())
        .unwrap_or_default();
    server
        .images
        .status(&name)
        .ok_or(CreateContainerError::NoImage(name))
}

/// The request's user before the image's; groups of the image's files are joined unless
/// the policy is Strict.
async fn look_up_user(
    server: &Server,
    image: &Image,
    config: &cri::ContainerConfig,
) -> Result<ResolvedUser, CreateContainerError> {
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let spec = user_spec(&security, image.user.as_deref())?;
    let looked_up = server.images.lookup_user(&image.id, &spec).await;
    let mut user = looked_up.map_err(CreateContainerError::User)?;
    if security.supplemental_groups_policy() == cri::SupplementalGroupsPolicy::Strict {
        user.groups.clear();
    }
    let mut groups: BTreeSet<u32> = user.groups.iter().copied().collect();
    for group in &security.supplemental_groups {
        groups.insert(id_number(
            "linux.security_context.supplemental_groups",
            *group,
        )?);
    }
    groups.insert(user.gid);
    user.groups = groups.into_iter().collect();
    Ok(user)
}

fn user_spec(
    security: &cri::LinuxContainerSecurityContext,
    image: Option<&str>,
) -> Result<UserSpec, CreateContainerError> {
    let mut spec = if let Some(uid) = &security.run_as_user {
        UserSpec::uid(id_number("linux.security_context.run_as_user", uid.value)?)
    } else if !security.run_as_username.is_empty() {
        UserSpec::name(&security.run_as_username).map_err(CreateContainerError::UserSpec)?
    } else {
        UserSpec::parse(image.unwrap_or_default()).map_err(CreateContainerError::UserSpec)?
    };
    if let Some(gid) = &security.run_as_group {
        let gid = id_number("linux.security_context.run_as_group", gid.value)?;
        spec.group = Some(Principal::Id(gid));
    }
    Ok(spec)
}

fn id_number(field: &str, value: i64) -> Result<u32, CreateContainerError> {
    let number = u32::try_from(value)
        .ok()
        .filter(|number| *number <= i32::MAX as u32);
    number.ok_or_else(|| CreateContainerError::Invalid {
        field: field.to_owned(),
        reason: format!("{value} is not a user or group id"),
    })
}

fn record_of(
    server: &Server,
    sandbox: &SandboxRecord,
    config: cri::ContainerConfig,
    image: &Image,
    user: &ResolvedUser,
) -> Result<ContainerRecord, CreateContainerError> {
    let named = config
        .metadata
        .as_ref()
        .is_some_and(|metadata| !metadata.name.is_empty());
    if !named {
        return Err(CreateContainerError::Invalid {
            field: "config.metadata.name".to_owned(),
            reason: "is required".to_owned(),
        });
    }
    let id = ContainerId::random();
    let log_path = Some(config.log_path.as_str())
        .filter(|path| !path.is_empty() && !sandbox.config.log_directory.is_empty())
        .map(|path| Path::new(&sandbox.config.log_directory).join(path));
    let image_id = image.id.to_string();
    let linux = config.linux.clone().unwrap_or_default();
    Ok(ContainerRecord {
        version: RECORD_VERSION,
        boot_id: server.boot_id.clone(),
        sandbox: sandbox.id.clone(),
        state: State::Reserved,
        created_at: time::now(),
        image_ref: image
            .repo_digests
            .first()
            .cloned()
            .unwrap_or_else(|| image_id.clone()),
        image_id,
        user: User {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
        },
        log_path,
        rootfs: Rootfs::Path(PathBuf::new()),
        cgroup: sandbox.cgroup.container(id.as_str()),
        resources: linux.resources.unwrap_or_default(),
        stop_signal: stop_signal(&config, image),
        not_enforced: Vec::new(),
        unaudited: false,
        config,
        id,
    })
}

fn stop_signal(config: &cri::ContainerConfig, image: &Image) -> i32 {
    let asked = signal::from_cri(config.stop_signal());
    let of_image = image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.stop_signal().clone());
    asked
        .or_else(|| signal::parse(&of_image?))
        .unwrap_or(signal::TERM)
}

fn spec(
    server: &Server,
    sandbox: &SandboxRecord,
    record: &ContainerRecord,
    image: &Image,
    user: &ResolvedUser,
) -> Result<Value, CreateContainerError> {
    let config = with_real_sources(&record.config)?;
    let linux = config.linux.clone().unwrap_or_default();
    let privileged = linux
        .security_context
        .as_ref()
        .is_some_and(|security| security.privileged);
    let devices = if privileged {
        host_devices(Path::new("/dev"))
    } else {
        Vec::new()
    };
    let input = SpecInput {
        config: &config,
        image: &image.config,
        user: &record.user,
        home: user.home.as_deref(),
        pod: PodInput {
            id: sandbox.id.as_str(),
            config: &sandbox.config,
            pause_pid: sandbox.pause_pid,
            target_pid: target_pid(server, sandbox, linux.security_context.as_ref()),
            files: &server.sandboxes.dir(&sandbox.id),
        },
        cgroup: &record.cgroup,
        host: &HostInput {
            default_capabilities: server.config.default_capabilities,
            bounding: &server.privileges.bounding,
            oom_score_floor: server.privileges.oom_score_floor,
            hugetlb: server.cgroups.controllers.contains("hugetlb"),
            apparmor: server.privileges.apparmor,
            seccomp: &HostProfiles,
            devices: &devices,
        },
    };
    oci_spec::build(&input).map_err(CreateContainerError::Spec)
}

/// The request with the sources of its mounts resolved: a symbolic link means its target
/// (the status keeps the link). A source that is not there is an error (CRI `Mount`).
fn with_real_sources(
    config: &cri::ContainerConfig,
) -> Result<cri::ContainerConfig, CreateContainerError> {
    let mut config = config.clone();
    for (index, mount) in config.mounts.iter_mut().enumerate() {
        if mount.host_path.is_empty() {
            continue;
        }
        let real = std::fs::canonicalize(&mount.host_path).map_err(|source| {
            let path = PathBuf::from(&mount.host_path);
            CreateContainerError::MountSource {
                index,
                path,
                source,
            }
        })?;
        mount.host_path = real.display().to_string();
    }
    Ok(config)
}

/// The init of the container whose PID namespace is asked for, if it runs in this pod.
fn target_pid(
    server: &Server,
    sandbox: &SandboxRecord,
    security: Option<&cri::LinuxContainerSecurityContext>,
) -> Option<i32> {
    let options = security?.namespace_options.as_ref()?;
    if options.target_id.is_empty() {
        return None;
    }
    let target = server.containers.find(&options.target_id).ok()?;
    (target.sandbox == sandbox.id)
        .then(|| target.pid())
        .flatten()
}

/// The profiles of this host: the runtime's default, and files.
struct HostProfiles;

impl SeccompSource for HostProfiles {
    fn default_profile(&self, capabilities: &[String]) -> Value {
        let mut held = CapabilitySet::default();
        for name in capabilities {
            held |= capability::of_name(name).unwrap_or_default();
        }
        let profile = berth_oci::seccomp::default_profile(held);
        serde_json::to_value(profile).expect("a seccomp profile is plain data")
    }

    fn localhost_profile(&self, path: &Path) -> std::io::Result<Value> {
        let profile: LinuxSeccomp = serde_json::from_slice(&std::fs::read(path)?)?;
        Ok(serde_json::to_value(profile)?)
    }
}

/// The device nodes below `dir`, without those of terminals and of other file systems.
fn host_devices(dir: &Path) -> Vec<HostDevice> {
    let mut devices = Vec::new();
    for path in record::list(dir).unwrap_or_default() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let skipped = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"];
            if !path
                .file_name()
                .is_some_and(|name| skipped.iter().any(|skip| name == *skip))
            {
                devices.extend(host_devices(&path));
            }
        } else if kind.is_block_device() || kind.is_char_device() {
            if path == Path::new("/dev/console") || path == Path::new("/dev/ptmx") {
                continue;
            }
            let number = metadata.rdev();
            devices.push(HostDevice {
                path,
                kind: if kind.is_block_device() { 'b' } else { 'c' },
                major: rustix::fs::major(number),
                minor: rustix::fs::minor(number),
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
    }
    devices
}
