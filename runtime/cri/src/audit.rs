//! The audit log as the server writes it: the one place where pods, containers and images
//! become entries.
//!
//! Where the configuration requires the log, what cannot be recorded does not happen: callers
//! ask [`Audit::ready`] before an effect, append behind it, and undo it where that fails.
//! Otherwise it happens, and its subject says that it was not recorded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_audit::{AppendError, Event, Kind, Log, NodeKeys, OpenError, Subject, hide_environment};
use berth_proto::cri;
use serde_json::value::{RawValue, to_raw_value};

use crate::config;
use crate::container::model::ContainerRecord;
use crate::sandbox::model::SandboxRecord;
use crate::server::Server;
use crate::status::chain;

/// How often the signed head is told to whoever collects this process's messages: what was
/// told cannot be changed on this machine afterwards.
const PUBLISHED_EVERY: Duration = Duration::from_hours(1);

/// A sandbox record as a monitor hands it over.
pub type Record = Option<Box<RawValue>>;

/// Why something cannot be recorded, and is refused for that.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is no log to write to.
    #[error("cannot open the audit log, which is required (cri.audit.required)")]
    Open(#[source] OpenError),
    /// The log takes no entry.
    #[error("cannot write to the audit log, which is required (cri.audit.required)")]
    Append(#[source] AppendError),
    /// The monitor's record is not JSON.
    #[error("cannot read the sandbox record")]
    Record(#[source] serde_json::Error),
    /// The task that wrote was ended with the server.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// The log, opened when it is first needed and again after it failed.
pub struct Audit {
    config: config::Audit,
    log: Mutex<Option<Arc<Log>>>,
}

impl Audit {
    /// A log that is not open yet.
    pub fn new(config: config::Audit) -> Audit {
        Audit {
            config,
            log: Mutex::default(),
        }
    }

    /// Makes sure that there is a log, before something is done that must be recorded.
    ///
    /// # Errors
    /// There is none, and the configuration requires it.
    pub async fn ready(self: &Arc<Self>) -> Result<(), AuditError> {
        if self.lock().is_some() {
            return Ok(());
        }
        let audit = self.clone();
        let opened = tokio::task::spawn_blocking(move || audit.open().map(drop)).await;
        match opened.map_err(|_| AuditError::ShuttingDown)? {
            Err(error) if self.config.required => Err(AuditError::Open(error)),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "audit log degraded");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Appends `event`. Where the log is not required and takes no entry, that is returned for
    /// people.
    ///
    /// # Errors
    /// The log takes no entry, and the configuration requires it.
    pub async fn append(self: &Arc<Self>, event: Event) -> Result<Option<String>, AuditError> {
        let audit = self.clone();
        let appended = tokio::task::spawn_blocking(move || audit.append_now(event)).await;
        match appended.map_err(|_| AuditError::ShuttingDown)? {
            Ok(()) => Ok(None),
            Err(error) if self.config.required => Err(error),
            Err(error) => {
                let line = format!("audit: not recorded: {}", chain(&error));
                tracing::warn!("{line}");
                Ok(Some(line))
            }
        }
    }

    /// Appends the start entry of a container unless there is one already.
    ///
    /// # Errors
    /// As for [`Audit::append`].
    pub async fn append_missing(
        self: &Arc<Self>,
        event: Event,
    ) -> Result<Option<String>, AuditError> {
        let (dir, id) = (self.config.dir.clone(), event.subject.container_id.clone());
        let told = tokio::task::spawn_blocking(move || berth_audit::tells_of_start(&dir, &id));
        match told.await.map_err(|_| AuditError::ShuttingDown)? {
            Ok(true) => Ok(None),
            // A log that cannot be read cannot be written either.
            Ok(false) | Err(_) => self.append(event).await,
        }
    }

    /// The head that signs everything so far; None where there is no log.
    fn head(&self) -> Option<Result<String, AppendError>> {
        let log = self.lock().clone();
        log.map(|log| log.seal())
    }

    /// Ends the log: all of it is on the disk and signed when this returns.
    pub fn close(&self) {
        let log = self.lock().take();
        drop(log);
    }

    fn append_now(&self, mut event: Event) -> Result<(), AuditError> {
        let mut log = self.open().map_err(AuditError::Open)?;
        if let Some(record) = event.record.take() {
            let hidden = hide_environment(record, log.keys());
            event.record = Some(hidden.map_err(AuditError::Record)?);
        }
        let appended = match log.append(&event) {
            Err(AppendError::Failed(reason)) => {
                tracing::error!(reason, "the audit log is opened again");
                // Its lock goes with it.
                self.lock().take_if(|held| Arc::ptr_eq(held, &log));
                drop(log);
                log = self.open().map_err(AuditError::Open)?;
                log.append(&event)
            }
            appended => appended,
        };
        appended.map(drop).map_err(AuditError::Append)
    }

    /// The log, opened if need be.
    fn open(&self) -> Result<Arc<Log>, OpenError> {
        let mut held = self.lock();
        if let Some(log) = &*held {
            return Ok(log.clone());
        }
        let keys = NodeKeys::open(&self.config.keys)?;
        let log = Arc::new(Log::open(&self.config.dir, self.config.limits, keys)?);
        *held = Some(log.clone());
        Ok(log)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Log>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the signed head at the start and every hour until the server ends.
pub async fn publish(server: Arc<Server>) {
    if let Err(error) = server.audit.ready().await {
        tracing::error!(error = %chain(&error), "no container can be started");
    }
    loop {
        let audit = server.audit.clone();
        match tokio::task::spawn_blocking(move || audit.head()).await {
            Ok(Some(Ok(head))) => tracing::info!(head = head.trim_end(), "audit log"),
            Ok(Some(Err(error))) => tracing::error!(error = %chain(&error), "audit log"),
            Ok(None) | Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(PUBLISHED_EVERY) => {}
            () = server.ending.cancelled() => return,
        }
    }
}

/// A container was started.
pub fn start(server: &Server, container: &ContainerRecord, who: &str, record: Record) -> Event {
    Event {
        kind: Kind::Start,
        subject: subject(server, container, who),
        record,
    }
}

/// `command` was executed in a container.
pub fn exec(
    server: &Server,
    container: &ContainerRecord,
    who: &str,
    command: &[String],
    record: Record,
) -> Event {
    Event {
        kind: Kind::Exec,
        subject: Subject {
            command: command.to_vec(),
            ..subject(server, container, who)
        },
        record,
    }
}

/// The limits of a container were changed; `record` compares them where it runs.
pub fn update(
    server: &Server,
    container: &ContainerRecord,
    who: &str,
    record: Option<&berth_oci::record::Record>,
) -> Event {
    Event {
        kind: Kind::Update,
        subject: subject(server, container, who),
        record: record.and_then(|record| to_raw_value(record).ok()),
    }
}

/// `image` was pulled by the name `from`, for a pod where the client named one.
pub fn pull(
    pod: Option<&cri::PodSandboxConfig>,
    image: &berth_image::Image,
    from: &berth_image::Reference,
    who: &str,
) -> Event {
    let prefix = format!("{}@", from.repository());
    let mut digests = image.repo_digests.iter();
    let of_name = digests.find(|name| name.starts_with(&prefix)).cloned();
    let record = serde_json::json!({ "id": image.id.to_string(), "size": image.size });
    Event {
        kind: Kind::Pull,
        subject: Subject {
            image: of_name.unwrap_or_else(|| image.id.to_string()),
            from: from.to_string(),
            who: who.to_owned(),
            ..pod_of(pod)
        },
        record: to_raw_value(&record).ok(),
    }
}

fn subject(server: &Server, container: &ContainerRecord, who: &str) -> Subject {
    let sandbox = server.sandboxes.get(&container.sandbox);
    let sandbox: Option<&SandboxRecord> = sandbox.as_deref();
    let metadata = container.config.metadata.clone().unwrap_or_default();
    Subject {
        container: metadata.name,
        container_id: container.id.to_string(),
        image: container.image_ref.clone(),
        who: who.to_owned(),
        ..pod_of(sandbox.map(|sandbox| &sandbox.config))
    }
}

fn pod_of(config: Option<&cri::PodSandboxConfig>) -> Subject {
    let metadata = config.and_then(|config| config.metadata.clone());
    let metadata = metadata.unwrap_or_default();
    Subject {
        namespace: metadata.namespace,
        pod: metadata.name,
        pod_uid: metadata.uid,
        ..Subject::default()
    }
}
