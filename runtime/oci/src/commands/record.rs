//! The sandbox record on the command line: what `create` keeps for `start`, and the file of `--record`.
//!
//! Without the flag nothing is compared: an engine pays for what it asks for.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_oci::launch::{self, Created, LaunchError, ProcessIo, Running};
use berth_oci::plan::{ExecPlan, Plan};
use berth_oci::record::{self, Record, Refused, Requested};
use berth_oci::spec::config::LinuxResources;
use berth_oci::state::{self, StateError, Store};
use berth_sys::process;

use super::Failure;

/// The file in which `create` keeps what was asked.
const KEPT: &str = "requested.json";

/// Writes records to the file of `--record`, one JSON object a line; without the flag nowhere.
#[derive(Debug)]
pub(super) struct Records(Option<(PathBuf, File)>);

impl Records {
    /// Opens the file: what cannot be recorded is not started.
    pub(super) fn open(path: Option<&Path>) -> Result<Records, Failure> {
        let Some(path) = path else {
            return Ok(Records(None));
        };
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).mode(0o600).open(path);
        let file = opened.map_err(Failure::io(format!("open the record `{}`", path.display())))?;
        Ok(Records(Some((path.to_owned(), file))))
    }

    fn append(&mut self, record: Record) -> Result<(), Failure> {
        let Some((path, file)) = &mut self.0 else {
            return Ok(());
        };
        let action = format!("write the record `{}`", path.display());
        let line = serde_json::to_vec(&record.publish()).map_err(std::io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line) // one call, so that lines of two runtimes do not mix
        });
        written.map_err(Failure::io(action))
    }

    /// Tells why a start was refused, and keeps the record that proves it.
    fn refused(&mut self, refused: Refused) -> Failure {
        let written = refused.record.map(|record| self.append(*record));
        match written {
            Some(Err(failure)) => failure,
            _ => refused.error.into(),
        }
    }

    /// Lets the container waiting at its gate start, verified.
    pub(super) fn start(
        &mut self,
        store: &Store,
        container: &state::Record,
    ) -> Result<(), Failure> {
        let id = &container.id;
        if self.0.is_none() {
            return Ok(launch::open_gate(&store.gate(id)?)?);
        }
        let requested = requested(store, id)?;
        let gate = store.gate(id)?;
        let started = launch::open_gate_verified(&gate, container.pid, requested);
        let record = started.map_err(|refused| self.refused(refused))?;
        self.append(record).inspect_err(|_| {
            // It must not run without its record; its end is seen by whoever waits for it.
            if let Ok(Some(init)) = container.init() {
                let _ = process::pidfd_send_signal(init, libc::SIGKILL);
            }
        })
    }

    /// Lets a container start that this process has made, verified.
    pub(super) fn start_held(
        &mut self,
        store: &Store,
        created: Created,
        id: &str,
    ) -> Result<Running, Failure> {
        if self.0.is_none() {
            return Ok(created.start()?);
        }
        let started = created.start_verified(requested(store, id)?);
        let (running, record) = started.map_err(|refused| self.refused(refused))?;
        self.append(record).inspect_err(|_| running.end())?;
        Ok(running)
    }

    /// Starts a further process, verified.
    pub(super) fn exec(
        &mut self,
        plan: &ExecPlan,
        io: ProcessIo,
        id: &str,
    ) -> Result<(Running, Option<OwnedFd>), Failure> {
        if self.0.is_none() {
            return Ok(launch::exec(plan, io)?);
        }
        let requested = record::further(plan, id);
        let executed = launch::exec_verified(plan, io, requested);
        let executed = executed.map_err(|refused| self.refused(refused))?;
        let appended = self.append(executed.record);
        appended.inspect_err(|_| executed.running.end())?;
        Ok((executed.running, executed.console))
    }

    /// Verifies new limits; what differs is an error, though the limits stay written.
    pub(super) fn update(
        &mut self,
        store: &Store,
        container: &state::Record,
        limits: &LinuxResources,
    ) -> Result<(), Failure> {
        let (Some(_), Some(group)) = (&self.0, &container.cgroup) else {
            return Ok(());
        };
        let record = record::update(&container.id, group, limits, true)?;
        keep_limits(store, &container.id, &record)?;
        let wrong: Vec<String> = record
            .mismatches
            .iter()
            .map(|one| format!("{}: {}", one.field, one.reason))
            .collect();
        self.append(record)?;
        if wrong.is_empty() {
            return Ok(());
        }
        let step = "compare the limits with what was asked";
        Err(LaunchError::refused(launch::Stage::Verify, step, wrong.join("; ")).into())
    }
}

fn requested(store: &Store, id: &str) -> Result<Requested, Failure> {
    serde_json::from_slice(&kept(store, id)?)
        .map_err(|error| Failure::Usage(format!("the state of `{id}` is damaged: {error}")))
}

/// What `create` kept.
fn kept(store: &Store, id: &str) -> Result<Vec<u8>, Failure> {
    match store.get(id, KEPT) {
        Err(StateError::Missing { .. }) => Err(Failure::Usage(format!(
            "container `{id}` was created without --record"
        ))),
        kept => Ok(kept?),
    }
}

/// Keeps what `plan` asks for, for `start` to compare with.
pub(super) fn keep(store: &Store, plan: &Plan) -> Result<(), Failure> {
    let requested = record::container(plan, &salt().map_err(Failure::io("take random bytes"))?);
    put(store, &plan.id, &requested)
}

/// A container that is updated before it is started has other limits to be compared with.
fn keep_limits(store: &Store, id: &str, record: &Record) -> Result<(), Failure> {
    let Some(fields) = &record.fields else {
        return Ok(());
    };
    let kept = kept(store, id)?;
    let Ok(mut requested) = serde_json::from_slice::<Requested>(&kept) else {
        return Ok(()); // `start` says so
    };
    requested.limits.clone_from(&fields.limits.requested);
    requested
        .device_rules
        .clone_from(&fields.device_rules.requested);
    put(store, id, &requested)
}

fn put(store: &Store, id: &str, requested: &Requested) -> Result<(), Failure> {
    let text = serde_json::to_vec(requested)
        .map_err(|error| Failure::Usage(format!("cannot keep what was asked: {error}")))?;
    Ok(store.put(id, KEPT, &text)?)
}

fn salt() -> std::io::Result<String> {
    let mut bytes = [0u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
