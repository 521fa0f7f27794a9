//! What a server finds at its start, and makes of it.
//!
//! One arm per phase of a sandbox and per state of a container. Afterwards every record
//! in memory tells the truth, every pod that runs is watched, and nothing half-made is
//! left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit;
use crate::container::model::{ContainerRecord, Exit, State};
use crate::container::start;
use crate::record::{self, RecordError};
use crate::sandbox::model::{Phase, SandboxRecord};
use crate::sandbox::{shm, stop, watch};
use crate::server::Server;
use crate::store::{Store, Stored};
use crate::time;

/// Takes over what an earlier server left: live records of this boot, else durable ones.
pub async fn recover(server: &Arc<Server>) -> Result<(), RecordError> {
    load(server)?;
    for record in server.containers.list() {
        recover_container(server, &record).await;
    }
    for record in server.sandboxes.list() {
        recover_sandbox(server, &record).await;
    }
    for record in server.containers.list() {
        match server.sandboxes.get(&record.sandbox) {
            // No client can mean it any more.
            None => discard(server, &record).await,
            // A durable record that was behind: nothing runs in a sandbox that is stopped.
            Some(sandbox) if sandbox.phase == Phase::Stopped && record.may_run() => {
                let exit = Exit::unseen(record.started_at(), time::now(), "Unknown");
                watch::end(server, &record.id, exit);
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn load(server: &Server) -> Result<(), RecordError> {
    // Made before its first record was: nothing else can exist.
    for dir in load_kind(&server.sandboxes, server)? {
        if let Err(error) = shm::unmount(&dir) {
            tracing::error!(error = %crate::status::chain(&error), "a pod without a record");
        }
        record::remove_tree(&dir)?;
    }
    for dir in load_kind(&server.containers, server)? {
        record::remove_tree(&dir)?;
    }
    Ok(())
}

/// Takes over the live records, and the durable ones of what has none; gives the directories
/// without a record.
fn load_kind<R: Stored>(store: &Store<R>, server: &Server) -> Result<Vec<PathBuf>, RecordError> {
    let mut without = Vec::new();
    for dir in record::list(store.folder())? {
        match usable(&dir, Store::<R>::read_live(&dir)) {
            Some(record) => store.adopt(record),
            None => without.push(dir),
        }
    }
    for file in server.journal.list(R::JOURNAL_KIND)? {
        if let Some(found) = usable::<R>(&file, record::read(&file))
            && store.get(found.id()).is_none()
        {
            let dir = store.dir(found.id());
            without.retain(|known| *known != dir);
            record::make_dir(&dir)?;
            store.adopt(found);
        }
    }
    Ok(without)
}

/// A record that cannot be read is reported and passed over: one broken file must not
/// keep the node from starting.
fn usable<T>(path: &Path, found: Result<Option<T>, RecordError>) -> Option<T> {
    found.unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), error = %crate::status::chain(&error), "record ignored");
        None
    })
}

async fn recover_container(server: &Arc<Server>, record: &ContainerRecord) {
    let this_boot = record.boot_id == server.boot_id;
    match &record.state {
        State::Reserved => discard(server, record).await,
        // A created container of an earlier boot has lost its configuration and pod.
        State::Created if !this_boot => {
            watch::end(server, &record.id, Exit::unseen(0, time::now(), "Unknown"));
        }
        // After a reboot: it ran, how it ended nobody saw, and it must not run twice.
        State::Starting | State::Running { .. } if !this_boot => {
            let started_at = match record.state {
                State::Running { started_at, .. } => started_at,
                _ => record.created_at,
            };
            watch::end(
                server,
                &record.id,
                Exit::unseen(started_at, time::now(), "Unknown"),
            );
        }
        // The monitor of its sandbox knows.
        State::Starting | State::Running { .. } => {}
        State::Created | State::Exited(_) => {}
    }
}

async fn recover_sandbox(server: &Arc<Server>, record: &SandboxRecord) {
    if record.boot_id != server.boot_id {
        return take_down(server, record).await;
    }
    match record.phase {
        // No one was told of it: all of it goes, and the retry makes a new one.
        Phase::Reserved | Phase::Starting | Phase::Networking => {
            take_down(server, record).await;
            if server
                .sandboxes
                .get(&record.id)
                .is_some_and(|now| now.phase == Phase::Stopped)
                && let Err(error) = server.sandboxes.remove(&record.id)
            {
                tracing::error!(sandbox = %record.id, error = %crate::status::chain(&error), "stays");
            }
        }
        Phase::Ready => adopt(server, record).await,
        Phase::Stopping => {
            // Its containers end only when somebody records that they did.
            watch::start(server, &record.id);
            take_down(server, record).await;
        }
        Phase::Stopped => {}
    }
}

/// Takes over a running pod: its monitor tells what happened meanwhile.
async fn adopt(server: &Arc<Server>, record: &SandboxRecord) {
    use berth_monitor::protocol::{Reply, Request};
    match server.monitor(&record.id).call(Request::State).await {
        Ok(Reply::State(state)) => {
            // Before the first client asks.
            watch::reconcile(server, &state);
            for container in server.containers.of(&record.id) {
                let known = state
                    .containers
                    .iter()
                    .any(|seen| seen.id == container.id.as_str());
                if !known {
                    unknown_to_its_monitor(server, &container);
                }
            }
            watch::start(server, &record.id);
            for container in server.containers.of(&record.id) {
                if container.unaudited {
                    recover_entry(server, &container).await;
                }
            }
        }
        Ok(_) | Err(_) => {
            tracing::error!(sandbox = %record.id, "monitor lost");
            watch::lost(server, &record.id).await;
        }
    }
}

/// A server ended between a container's start and its entry in the audit log: the monitor has
/// handed the record over, and it is lost. That it was started is not.
async fn recover_entry(server: &Arc<Server>, container: &ContainerRecord) {
    let event = audit::start(server, container, "an earlier server", None);
    if let Err(error) = server.audit.append_missing(event).await {
        tracing::error!(container = %container.id, error = %crate::status::chain(&error), "killed");
        return start::unrecorded(server, container, &error).await;
    }
    let told = server
        .containers
        .update(&container.id, |record| record.unaudited = false);
    if let Err(error) = told {
        tracing::error!(container = %container.id, error = %crate::status::chain(&error), "not recorded");
    }
}

/// The monitor was never asked for it, or has been told to forget it.
fn unknown_to_its_monitor(server: &Server, record: &ContainerRecord) {
    match record.state {
        // Nothing ran: the client's retry starts it.
        State::Starting => {
            if let Err(error) = start::take_back(server, &record.id) {
                tracing::error!(container = %record.id, error = %crate::status::chain(&error), "start not taken back");
            }
        }
        // A durable record that was behind its removal.
        State::Running { started_at, .. } => {
            let exit = Exit::unseen(started_at, time::now(), "Unknown");
            watch::end(server, &record.id, exit);
        }
        State::Reserved | State::Created | State::Exited(_) => {}
    }
}

async fn take_down(server: &Arc<Server>, record: &SandboxRecord) {
    if let Err(error) = stop::stop(server, &record.id).await {
        tracing::error!(sandbox = %record.id, error = %crate::status::chain(&error), "not cleared up");
    }
}

async fn discard(server: &Arc<Server>, record: &ContainerRecord) {
    if let Err(error) = crate::container::remove::discard(server, record).await {
        tracing::error!(container = %record.id, error = %crate::status::chain(&error), "stays");
    }
}
