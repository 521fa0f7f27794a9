//! From the order to start to the verdict: holds the process at its execve, or reads before it.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_sys::ptrace::{self, Seized, Stop};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::compare::{Findings, compare};
use super::digest;
use super::observed::{AtStop, Observed, observe};
use super::own::{Own, own};
use super::schema::{Applied, Fields, Finding, Kind, ReadAt, Record, Requested, VERSION, Verdict};
use crate::launch::{At, LaunchError, Stage};

/// How long an execve may take once it has closed the channel: what is left is mapping the program.
const EXEC_LIMIT: Duration = Duration::from_secs(30);
/// Signals to the process are looked for this often while it is still to reach its execve.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// A start that was refused, with the record that says why, if it came so far.
#[derive(Debug)]
pub struct Refused {
    /// The error to tell.
    pub error: LaunchError,
    /// The record with the verdict `mismatch`.
    pub record: Option<Box<Record>>,
}

impl From<LaunchError> for Refused {
    fn from(error: LaunchError) -> Refused {
        Refused {
            error,
            record: None,
        }
    }
}

/// One process on its way to its program, under verification.
#[derive(Debug)]
pub struct Watch {
    requested: Requested,
    pid: i32,
    own: &'static Own,
    /// The tracee, or why there is none.
    seized: Result<Seized, String>,
    /// What came out at the barrier, where there is no tracee.
    early: Option<Record>,
}

impl Watch {
    /// Takes hold of the process, as far as that can honestly be done.
    pub fn begin(pid: i32, requested: Requested) -> Result<Watch, LaunchError> {
        let own = own().at(Stage::Verify, || "read what the runtime is itself".into())?;
        let seized = match own.cannot_trace(makes_users(&requested)) {
            Some(reason) => Err(reason),
            None => ptrace::seize(pid).map_err(|error| error.to_string()),
        };
        Ok(Watch {
            requested,
            pid,
            own,
            seized,
            early: None,
        })
    }

    /// Whether the process has to be read while it waits for its last order.
    pub fn needs_barrier(&self) -> bool {
        self.seized.is_err()
    }

    /// To be called while the process waits for its last order: where it cannot be traced, this is
    /// what keeps a wrong sandbox from running.
    pub fn at_barrier(&mut self) -> Result<(), Refused> {
        let Err(reason) = &self.seized else {
            return Ok(());
        };
        let seen = match observe(self.pid, &self.requested, self.own, None) {
            // It is untraceable, and without CAP_SYS_PTRACE its files are nobody's to read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let reason = format!("exec-stop unavailable ({reason}); at the barrier: {error}");
                self.early = Some(self.unreadable(reason));
                return Ok(());
            }
            seen => seen.at(Stage::Verify, || "read the sandbox back".into())?,
        };
        let (pid, reason) = (Some(self.pid), Some(reason.clone()));
        let requested = mem::take(&mut self.requested);
        let record = judge(requested, seen, self.own, ReadAt::Barrier, reason, pid);
        if record.verdict == Verdict::Mismatch {
            return Err(refuse(record));
        }
        self.early = Some(record);
        Ok(())
    }

    /// The record of a process of which nothing can be told but what was asked.
    fn unreadable(&mut self, reason: String) -> Record {
        let requested = mem::take(&mut self.requested);
        Record {
            version: VERSION,
            kind: kind(&requested),
            container: requested.context.container.clone(),
            pid: Some(self.pid),
            time: now(),
            read_at: ReadAt::Never,
            verdict: Verdict::Degraded,
            degraded: vec![Finding {
                field: "read_at".into(),
                reason,
            }],
            mismatches: Vec::new(),
            fields: Some(Box::new(Fields::pair(requested, Applied::default()))),
        }
    }

    /// Waits until `channel` is closed by the execve or has something to say; signals that come
    /// meanwhile are passed on.
    pub fn until_heard(&self, channel: impl AsFd) -> Result<(), LaunchError> {
        if self.seized.is_err() {
            return Ok(()); // receiving blocks
        }
        while !self.heard_within(&channel, Duration::MAX)? {}
        Ok(())
    }

    /// As [`Watch::until_heard`], for about that long; whether something was heard.
    pub fn heard_within(&self, channel: impl AsFd, time: Duration) -> Result<bool, LaunchError> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            let mut fds = [PollFd::new(&channel, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&TICK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => {
                    return Err(errno).at(Stage::Verify, || "wait for the execve".into());
                }
            }
            if let Ok(seized) = &self.seized {
                seized
                    .look()
                    .at(Stage::Verify, || "watch the process".into())?;
            }
        }
        Ok(false)
    }

    /// After the channel was closed: reads, compares, and lets the process go. After an error it is
    /// killed; whoever is its parent still has to collect it.
    pub fn finish(self) -> Result<Record, Refused> {
        let Watch {
            requested,
            pid,
            own,
            seized,
            early,
        } = self;
        let seized = match (seized, early) {
            (Ok(seized), _) => seized,
            (Err(_), Some(record)) => return Ok(record),
            (Err(reason), None) => {
                let step = "read the sandbox back";
                return Err(LaunchError::refused(Stage::Verify, step, reason).into());
            }
        };
        let observed = at_stop(&seized, pid, &requested, own)?;
        let record = judge(requested, observed, own, ReadAt::ExecStop, None, Some(pid));
        if record.verdict == Verdict::Mismatch {
            return Err(refuse(record)); // dropping the tracee kills it
        }
        let released = seized.detach();
        released.at(Stage::Verify, || "let the process go".into())?;
        Ok(record)
    }
}

fn at_stop(
    seized: &Seized,
    pid: i32,
    requested: &Requested,
    own: &Own,
) -> Result<Observed, LaunchError> {
    let step = || "wait for the execve".to_owned();
    match seized.wait(EXEC_LIMIT).at(Stage::Verify, step)? {
        Stop::Exec => {}
        Stop::Ended => {
            let reason = "the process was killed before its program ran";
            return Err(LaunchError::refused(Stage::Exec, step(), reason));
        }
    }
    let mut filters = Vec::new();
    let filters = loop {
        match seized.filter(filters.len()) {
            Ok(Some(program)) => filters.push(digest::filter(&program)),
            Ok(None) => break Some(filters),
            // No filter at all is EINVAL; others: the kernel gives none back.
            Err(_) => break None,
        }
    };
    let stopped = AtStop { filters };
    observe(pid, requested, own, Some(stopped)).at(Stage::Verify, || "read the sandbox back".into())
}

fn judge(
    requested: Requested,
    observed: Observed,
    own: &Own,
    read_at: ReadAt,
    reason: Option<String>,
    pid: Option<i32>,
) -> Record {
    let Findings {
        mismatches,
        mut degraded,
    } = compare(&requested, &observed, own, read_at);
    if let Some(reason) = reason {
        degraded.insert(
            0,
            Finding {
                field: "read_at".into(),
                reason: format!("exec-stop unavailable ({reason})"),
            },
        );
    }
    let mut applied = observed.applied;
    name_namespaces(&requested, own, &mut applied);
    Record {
        version: VERSION,
        kind: kind(&requested),
        container: requested.context.container.clone(),
        pid,
        time: now(),
        read_at,
        verdict: match (mismatches.is_empty(), degraded.is_empty()) {
            (false, _) => Verdict::Mismatch,
            (true, false) => Verdict::Degraded,
            (true, true) => Verdict::Match,
        },
        degraded,
        mismatches,
        fields: Some(Box::new(Fields::pair(requested, applied))),
    }
}

/// Whether the process is the first of a user namespace made for it.
fn makes_users(requested: &Requested) -> bool {
    let mut all = requested.namespaces.iter().flatten();
    !requested.context.exec && all.any(|one| one.kind == "user" && one.of == "new")
}

fn kind(requested: &Requested) -> Kind {
    match requested.context.exec {
        true => Kind::Exec,
        false => Kind::Start,
    }
}

/// Says of each namespace whose it is.
fn name_namespaces(requested: &Requested, own: &Own, applied: &mut Applied) {
    for namespace in applied.namespaces.iter_mut().flatten() {
        let mut asked = requested.namespaces.iter().flatten();
        let joined = asked.any(|one| one.kind == namespace.kind && one.of == "pod");
        let of = if own.namespaces.get(&namespace.kind).copied() == namespace.inode {
            "host"
        } else if joined || requested.context.exec {
            "pod"
        } else {
            "new"
        };
        namespace.of = of.to_owned();
    }
}

fn refuse(record: Record) -> Refused {
    let all = record.mismatches.iter();
    let all: Vec<String> = all
        .map(|one| format!("{}: {}", one.field, one.reason))
        .collect();
    let step = "compare the sandbox with what was asked";
    Refused {
        error: LaunchError::refused(Stage::Verify, step, all.join("; ")),
        record: Some(Box::new(record)),
    }
}

pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// A read of limits that changed while the container runs.
pub(super) fn of_limits(requested: Requested) -> io::Result<Record> {
    let own = own()?;
    let observed = super::observed::observe_limits(&requested);
    let mut record = judge(requested, observed, own, ReadAt::Running, None, None);
    record.kind = Kind::Update;
    Ok(record)
}
