//! The container event stream: numbered without gaps, so that a client that lost its
//! connection can continue where it was.
//!
//! A client resumes with the request header `berth-resume-after: <sequence>`. When the
//! events after that number are not kept any more, or belong to an earlier server, the
//! call fails with OUT_OF_RANGE: the client lists everything and subscribes without it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_proto::cri;
use tokio::sync::watch;

use crate::id::SandboxId;
use crate::server::Server;

/// The request header that asks for the events after a sequence number.
pub const RESUME_HEADER: &str = "berth-resume-after";
/// Events kept for clients that come back.
const KEPT: usize = 4096;

/// The events asked for are not to be had.
#[derive(Debug, thiserror::Error)]
#[error("events after {after} are not kept; the oldest is {oldest}: list again")]
pub struct ResumeError {
    /// What was asked.
    pub after: u64,
    /// The oldest kept event.
    pub oldest: u64,
}

struct Log {
    kept: VecDeque<cri::ContainerEventResponse>,
    /// Sequence number of the newest event.
    last: u64,
}

/// The newest events of this server.
pub struct EventLog {
    log: Mutex<Log>,
    newest: watch::Sender<u64>,
}

impl EventLog {
    /// An empty log. Numbers start behind those of any earlier server: at the time in
    /// seconds, shifted, so that a number of another server is always out of range.
    pub fn new() -> Self {
        Self::starting_at(((crate::time::now() / 1_000_000_000) as u64) << 20)
    }

    fn starting_at(last: u64) -> Self {
        let log = Mutex::new(Log {
            kept: VecDeque::new(),
            last,
        });
        EventLog {
            log,
            newest: watch::channel(last).0,
        }
    }

    /// Adds an event and numbers it.
    pub fn push(&self, mut event: cri::ContainerEventResponse) {
        let mut log = self.lock();
        log.last += 1;
        event.berth_sequence = log.last;
        if log.kept.len() == KEPT {
            log.kept.pop_front();
        }
        log.kept.push_back(event);
        self.newest.send_replace(log.last);
    }

    /// A reader of the events after `after`; of those to come when None.
    pub fn reader(&self, after: Option<u64>) -> Result<EventReader, ResumeError> {
        let log = self.lock();
        let oldest = log.last + 1 - log.kept.len() as u64;
        match after {
            Some(after) if after > log.last || after + 1 < oldest => {
                Err(ResumeError { after, oldest })
            }
            _ => {
                let newest = self.newest.subscribe();
                Ok(EventReader {
                    seen: after.unwrap_or(log.last),
                    newest,
                })
            }
        }
    }

    /// The event after `seen`: None when there is none yet, an error when it is not kept.
    fn after(&self, seen: u64) -> Result<Option<cri::ContainerEventResponse>, ResumeError> {
        let log = self.lock();
        let oldest = log.last + 1 - log.kept.len() as u64;
        if seen + 1 < oldest {
            return Err(ResumeError {
                after: seen,
                oldest,
            });
        }
        Ok(log.kept.get((seen + 1 - oldest) as usize).cloned())
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one client's events.
pub struct EventReader {
    seen: u64,
    newest: watch::Receiver<u64>,
}

impl EventReader {
    /// The next event of `log`. Fails when this client is so slow that events were dropped.
    pub async fn next(
        &mut self,
        log: &EventLog,
    ) -> Result<cri::ContainerEventResponse, ResumeError> {
        loop {
            if let Some(event) = log.after(self.seen)? {
                self.seen = event.berth_sequence;
                return Ok(event);
            }
            // The log outlives its readers, so that this cannot fail for long.
            let _ = self.newest.wait_for(|newest| *newest > self.seen).await;
        }
    }
}

impl Server {
    /// Tells that something happened to a container, or to the sandbox itself, with the
    /// state of the whole pod.
    pub fn emit(&self, sandbox: &SandboxId, subject: &str, kind: cri::ContainerEventType) {
        let status = self.sandboxes.get(sandbox).map(|record| record.to_status());
        let containers = self.containers.of(sandbox);
        self.events.push(cri::ContainerEventResponse {
            container_id: subject.to_owned(),
            container_event_type: kind.into(),
            created_at: crate::time::now(),
            pod_sandbox_status: status,
            containers_statuses: containers.iter().map(|record| record.to_status()).collect(),
            berth_sequence: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> cri::ContainerEventResponse {
        cri::ContainerEventResponse {
            container_id: id.to_owned(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_client_continues_where_it_was() {
        let log = EventLog::starting_at(100);
        let mut first = log.reader(None).unwrap();
        log.push(event("a"));
        log.push(event("b"));
        assert_eq!(first.next(&log).await.unwrap().berth_sequence, 101);
        let mut again = log.reader(Some(101)).unwrap();
        let (next, ()) = tokio::join!(
            async {
                (
                    again.next(&log).await.unwrap(),
                    again.next(&log).await.unwrap(),
                )
            },
            async { log.push(event("c")) }
        );
        assert_eq!(
            (next.0.container_id.as_str(), next.1.berth_sequence),
            ("b", 103)
        );
    }

    #[test]
    fn what_is_not_kept_is_out_of_range() {
        let log = EventLog::starting_at(100);
        assert!(log.reader(Some(99)).is_err(), "another server's number");
        assert!(
            log.reader(Some(101)).is_err(),
            "a number that was never given"
        );
        assert!(log.reader(Some(100)).is_ok());
        for _ in 0..=KEPT {
            log.push(event("x"));
        }
        assert!(log.reader(Some(100)).is_err());
        assert!(log.reader(Some(101)).is_ok());
    }
}
