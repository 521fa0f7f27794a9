//! What is known about one container.

use std::path::PathBuf;

use berth_monitor::protocol::{ExitRecord, Rootfs};
use berth_proto::cri;
use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, SandboxId};

/// Version of [`ContainerRecord`] as stored.
pub const RECORD_VERSION: u32 = 1;

/// Where a container is in its life. It only ever moves down this list, but for a start that
/// was recorded and never asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The name is taken; a snapshot may exist. Not told to anyone.
    Reserved,
    /// Recorded, with its snapshot and its OCI configuration; nothing runs.
    Created,
    /// The monitor was or will be asked to start it.
    Starting,
    /// It runs.
    Running {
        /// Its init.
        pid: i32,
        /// Nanoseconds since 1970, UTC.
        started_at: i64,
    },
    /// It has ended, or never began.
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Nanoseconds since 1970, UTC; 0 when it never ran.
    pub started_at: i64,
    /// Nanoseconds since 1970, UTC.
    pub finished_at: i64,
    /// 0–255, or 128 + signal.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `MonitorLost` or `Unknown`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Exit code of a container whose end nobody saw.
pub const UNSEEN_EXIT_CODE: i32 = 255;

impl Exit {
    /// What the monitor saw.
    pub fn seen(record: &ExitRecord) -> Exit {
        let reason = match record {
            ExitRecord {
                oom_killed: true, ..
            } => "OOMKilled",
            ExitRecord { code: 0, .. } => "Completed",
            _ => "Error",
        };
        Exit {
            started_at: record.started_at,
            finished_at: record.finished_at,
            code: record.code,
            reason: reason.to_owned(),
            message: record.error.clone().unwrap_or_default(),
        }
    }

    /// An end that nobody saw.
    pub fn unseen(started_at: i64, finished_at: i64, reason: &str) -> Exit {
        Exit {
            started_at,
            finished_at,
            code: UNSEEN_EXIT_CODE,
            reason: reason.to_owned(),
            message: String::new(),
        }
    }
}

/// The numbers a container's process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// One container. A record is never changed, only replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// [`RECORD_VERSION`] of the writer.
    pub version: u32,
    /// The boot in which the container was made.
    pub boot_id: String,
    /// Its identifier.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// Where it is in its life.
    pub state: State,
    /// Nanoseconds since 1970, UTC.
    pub created_at: i64,
    /// The request.
    pub config: cri::ContainerConfig,
    /// Digest of the image configuration.
    pub image_id: String,
    /// Digested name of the image, or its id when it has none.
    pub image_ref: String,
    /// Who its process is.
    pub user: User,
    /// Absolute; None discards the output.
    pub log_path: Option<PathBuf>,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Relative to the cgroup2 mount.
    pub cgroup: PathBuf,
    /// The limits in force.
    pub resources: cri::LinuxContainerResources,
    /// Number of the signal that asks it to end.
    pub stop_signal: i32,
    /// Limits the host does not enforce, one line for people each.
    pub not_enforced: Vec<String>,
    /// It was or will be started, and the audit log may not tell of it yet.
    #[serde(default)]
    pub unaudited: bool,
}

impl ContainerRecord {
    /// The name under which a container is reserved.
    pub fn name(sandbox: &SandboxId, config: &cri::ContainerConfig) -> String {
        let cri::ContainerMetadata { name, attempt } = config.metadata.clone().unwrap_or_default();
        format!("{name}_{sandbox}_{attempt}")
    }

    /// The CRI state.
    pub fn state(&self) -> cri::ContainerState {
        match self.state {
            State::Reserved | State::Created | State::Starting => {
                cri::ContainerState::ContainerCreated
            }
            State::Running { .. } => cri::ContainerState::ContainerRunning,
            State::Exited(_) => cri::ContainerState::ContainerExited,
        }
    }

    /// Whether it runs, as far as is known.
    pub fn may_run(&self) -> bool {
        match self.state {
            State::Starting | State::Running { .. } => true,
            State::Reserved | State::Created | State::Exited(_) => false,
        }
    }

    /// When it began to run, if that is known; nanoseconds since 1970, UTC, else 0.
    pub fn started_at(&self) -> i64 {
        match &self.state {
            State::Running { started_at, .. } => *started_at,
            State::Exited(exit) => exit.started_at,
            State::Reserved | State::Created | State::Starting => 0,
        }
    }

    /// Its init, while it runs.
    pub fn pid(&self) -> Option<i32> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Reserved | State::Created | State::Starting | State::Exited(_) => None,
        }
    }

    /// As ListContainers tells it.
    pub fn to_item(&self) -> cri::Container {
        cri::Container {
            id: self.id.to_string(),
            pod_sandbox_id: self.sandbox.to_string(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.image_ref.clone(),
            state: self.state().into(),
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            image_id: self.image_id.clone(),
        }
    }

    /// As ContainerStatus tells it.
    pub fn to_status(&self) -> cri::ContainerStatus {
        let (started_at, exit) = match &self.state {
            State::Reserved | State::Created | State::Starting => (0, None),
            State::Running { started_at, .. } => (*started_at, None),
            State::Exited(exit) => (exit.started_at, Some(exit.clone())),
        };
        let message = match &exit {
            Some(exit) => exit.message.clone(),
            None => self.not_enforced.join("; "),
        };
        cri::ContainerStatus {
            id: self.id.to_string(),
            metadata: self.config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created_at,
            started_at,
            finished_at: exit.as_ref().map_or(0, |exit| exit.finished_at),
            exit_code: exit.as_ref().map_or(0, |exit| exit.code),
            image: self.user_image(),
            image_ref: self.image_ref.clone(),
            reason: exit.map(|exit| exit.reason).unwrap_or_default(),
            message,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log_path_text(),
            resources: Some(cri::ContainerResources {
                linux: Some(self.resources.clone()),
                windows: None,
            }),
            image_id: self.image_id.clone(),
            user: Some(self.user_status()),
            stop_signal: crate::container::signal::to_cri(self.stop_signal).into(),
        }
    }

    /// The image as the user wrote it, when the client told.
    fn user_image(&self) -> Option<cri::ImageSpec> {
        let mut image = self.config.image.clone().unwrap_or_default();
        if !image.user_specified_image.is_empty() {
            image.image = image.user_specified_image.clone();
        }
        Some(image)
    }

    fn log_path_text(&self) -> String {
        self.log_path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default()
    }

    fn user_status(&self) -> cri::ContainerUser {
        let User { uid, gid, groups } = &self.user;
        cri::ContainerUser {
            linux: Some(cri::LinuxContainerUser {
                uid: i64::from(*uid),
                gid: i64::from(*gid),
                supplemental_groups: groups.iter().map(|gid| i64::from(*gid)).collect(),
            }),
        }
    }

    /// As stats name it.
    pub fn to_attributes(&self) -> cri::ContainerAttributes {
        cri::ContainerAttributes {
            id: self.id.to_string(),
            metadata: self.config.metadata.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

#[cfg(test)]
pub mod testing {
    //! Records for the tests of other modules.
    use super::*;

    /// A created container named `name`.
    pub fn record(name: &str, sandbox: &SandboxId) -> ContainerRecord {
        let metadata = cri::ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        };
        ContainerRecord {
            version: RECORD_VERSION,
            boot_id: "boot".to_owned(),
            id: ContainerId::random(),
            sandbox: sandbox.clone(),
            state: State::Created,
            created_at: 1,
            config: cri::ContainerConfig {
                metadata: Some(metadata),
                ..Default::default()
            },
            image_id: "sha256:0".to_owned(),
            image_ref: "sha256:0".to_owned(),
            user: User::default(),
            log_path: None,
            rootfs: Rootfs::Path("/x".into()),
            cgroup: "pods/p/c".into(),
            resources: cri::LinuxContainerResources::default(),
            stop_signal: 15,
            not_enforced: Vec::new(),
            unaudited: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_names_its_reason() {
        let record = |code, oom_killed| ExitRecord {
            container: "c".to_owned(),
            code,
            signal: None,
            oom_killed,
            started_at: 1,
            finished_at: 2,
            error: None,
        };
        for (code, oom, reason) in [
            (0, false, "Completed"),
            (1, false, "Error"),
            (137, true, "OOMKilled"),
        ] {
            assert_eq!(Exit::seen(&record(code, oom)).reason, reason);
        }
    }

    #[test]
    fn a_status_tells_the_end() {
        let mut record = testing::record("c", &SandboxId::random());
        assert_eq!(
            record.to_status().state(),
            cri::ContainerState::ContainerCreated
        );
        record.state = State::Exited(Exit::unseen(5, 9, "MonitorLost"));
        let status = record.to_status();
        assert_eq!(
            (status.exit_code, status.started_at, status.finished_at),
            (255, 5, 9)
        );
        assert_eq!(status.reason, "MonitorLost");
        let text = serde_json::to_string(&record).unwrap();
        let read: ContainerRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(read.to_status(), status);
    }
}
