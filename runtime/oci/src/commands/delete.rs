//! `delete`: removes what is left of a container.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_oci::cgroup::{Cgroup, Scope};
use berth_oci::state::{Record, StateError, Status, Store};
use berth_sys::crash_point;
use berth_sys::process;

use super::failure::chain;
use super::{Failure, poststop};
use crate::log::Log;

/// How long a killed init may take to end, and another call of the runtime with the container.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(store: &Store, id: &str, force: bool, log: &Log) -> Result<ExitCode, Failure> {
    if force && let Ok(record) = store.load(id) {
        // A start that has the lock may wait for this very init, which does not get ready.
        kill_init(&record)?;
    }
    let lock = match store.lock_within(id, PATIENCE) {
        Err(StateError::NotFound(_)) if force => return Ok(ExitCode::SUCCESS),
        lock => lock?,
    };
    delete(store, id, force, log)?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

/// Deletes a container that the caller has locked. Running it again after a crash completes it.
pub(super) fn delete(store: &Store, id: &str, force: bool, log: &Log) -> Result<(), Failure> {
    let record = match store.load(id) {
        // A create that died before its first record: there is only the directory.
        Err(StateError::NotFound(_)) if force => return Ok(store.remove(id)?),
        Err(error @ (StateError::Damaged { .. } | StateError::Missing { .. })) if force => {
            log.warn(&format!("{}; what it still tells is used", chain(&error)));
            store.salvage(id)?
        }
        record => record?,
    };
    let status = store.status(&record)?;
    if status != Status::Stopped {
        if !force {
            return Err(Failure::wrong_status("delete", id, status));
        }
        kill_init(&record)?;
    }
    crash_point!("delete: processes killed");
    destroy(store, &record, log)
}

/// Takes away what a failed create has made, its record included; its process is gone.
pub(super) fn undo(store: &Store, id: &str, log: &Log) -> Result<(), Failure> {
    let Ok(record) = store.load(id) else {
        return Ok(store.remove(id)?); // it had not come to a record
    };
    // Who is in the group now was there before: the spec named a group of somebody else.
    let group = record.cgroup.as_deref().map(Cgroup::open);
    let foreign =
        group.is_some_and(|group| group.is_ok_and(|group| group.populated().unwrap_or(true)));
    if !foreign {
        remove_cgroup(&record)?;
    }
    poststop(store, &record, log);
    Ok(store.remove(id)?)
}

fn destroy(store: &Store, record: &Record, log: &Log) -> Result<(), Failure> {
    remove_cgroup(record)?;
    crash_point!("delete: cgroup removed");
    poststop(store, record, log);
    crash_point!("delete: hooks run");
    store.remove(&record.id)?;
    crash_point!("delete: state removed");
    Ok(())
}

fn kill_init(record: &Record) -> Result<(), Failure> {
    let failed = || Failure::io(format!("kill container `{}`", record.id));
    let Some(init) = record.init().map_err(failed())? else {
        return Ok(());
    };
    let _ = process::pidfd_send_signal(&init, libc::SIGKILL); // ESRCH: gone already
    let deadline = Instant::now() + PATIENCE;
    let mut fds = [rustix::event::PollFd::new(
        &init,
        rustix::event::PollFlags::IN,
    )];
    while Instant::now() < deadline {
        let wait = rustix::event::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(failed()(errno.into())),
        }
    }
    Err(failed()(std::io::ErrorKind::TimedOut.into()))
}

/// Kills what the init left behind (a container without its own PID namespace can), then removes.
fn remove_cgroup(record: &Record) -> Result<(), Failure> {
    let Some(path) = &record.cgroup else {
        return Ok(());
    };
    match Cgroup::open(path) {
        Ok(group) => {
            if group.populated()? {
                group.kill()?;
            }
            group.remove()?;
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(unit) = &record.scope {
        Scope::stop(unit)?;
    }
    Ok(())
}
