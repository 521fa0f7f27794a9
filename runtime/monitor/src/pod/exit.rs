//! What happens when a child of the monitor ends.

use std::time::{Duration, Instant};

use berth_oci::cgroup::Cgroup;
use berth_sys::process::pidfd_send_signal;
use berth_sys::reap::Ended;

use super::{Container, Phase, Pod, SIGKILL, SessionEnd};
use crate::exit_record::{self, Observed};
use crate::failure::chain;
use crate::protocol::EventKind;
use crate::time;

/// How long the exit event waits for the last output to reach the log. Whoever sees the event may read the log at
/// once; but a stalled disk must not hide the exit.
const DRAIN: Duration = Duration::from_millis(30);

impl Pod {
    /// Takes the end of a reaped child, whichever it was. Orphans of the pod that came to the monitor are nobody's.
    pub fn ended(&mut self, pid: i32, ended: Ended) -> Option<SessionEnd> {
        if self.pause.as_ref().is_some_and(|pause| pause.pid == pid) {
            self.pause = None;
            self.dirty = true;
            if !self.stopping {
                self.events.push(EventKind::PauseExited);
            }
            return None;
        }
        let is_init = |container: &Container| matches!(&container.phase, Phase::Running(init) if init.pid == pid);
        let found = self
            .containers
            .iter()
            .find(|(_, container)| is_init(container));
        if let Some(number) = found.map(|(number, _)| *number) {
            self.init_ended(number, ended);
            return None;
        }
        let (code, signal) = exit_record::code_and_signal(ended);
        self.session_ended(pid, code, signal)
    }

    fn init_ended(&mut self, number: u32, ended: Ended) {
        let Some(container) = self.containers.get_mut(&number) else {
            return;
        };
        // Without a PID namespace of its own its other processes live on; they belong to the container, not the pod.
        if let Some(Ok(cgroup)) = container.cgroup.as_deref().map(Cgroup::open) {
            let _ = cgroup.kill();
        }
        let oom = container.oom.take();
        let mut record = exit_record::compute(&Observed {
            container: &container.id,
            ended,
            oom_kills: oom.and_then(|oom| oom.kills()),
            started_at: container.started_at,
            finished_at: time::now(),
        });
        let drained = container.drained;
        let (id, kind) = (container.id.clone(), container.launcher.clone());
        if let Some(cgroup) = container.cgroup.take() {
            self.cleanup.add(cgroup);
        }
        if let Err(failure) = self.launcher(&kind).delete(&id) {
            record.error = Some(chain(&failure));
        }
        if let Some(container) = self.containers.get_mut(&number) {
            let deadline = Instant::now() + DRAIN;
            container.phase = Phase::Draining { record, deadline };
        }
        if drained {
            self.finish(number);
        }
        self.dirty = true;
    }

    /// All output of a container is in the log.
    pub fn drained(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else {
            return;
        };
        container.drained = true;
        match container.phase {
            Phase::Running(_) => {}
            Phase::Draining { .. } => self.finish(number),
            Phase::Exited(_) => self.streams.remove(number),
        }
    }

    /// Completes a container's exit: from now on its record and event are there.
    pub(super) fn finish(&mut self, number: u32) {
        let Some(container) = self.containers.get_mut(&number) else {
            return;
        };
        let Phase::Draining { record, .. } = &container.phase else {
            return;
        };
        let record = record.clone();
        self.events.push(EventKind::Exited(record.clone()));
        container.phase = Phase::Exited(record);
        if container.drained {
            self.streams.remove(number);
        }
        self.dirty = true;
    }

    /// When [`Pod::deadline_passed`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        let draining = self
            .containers
            .values()
            .filter_map(|container| match container.phase {
                Phase::Draining { deadline, .. } => Some(deadline),
                _ => None,
            });
        draining
            .chain(self.cleanup.deadline())
            .chain(self.streams.deadline())
            .min()
    }

    /// Does what was put off until now.
    pub fn deadline_passed(&mut self) {
        let now = Instant::now();
        let due = |container: &Container| matches!(container.phase, Phase::Draining { deadline, .. } if deadline <= now);
        let due: Vec<u32> = self
            .containers
            .iter()
            .filter(|(_, container)| due(container))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            self.finish(number);
        }
        for failed in self.cleanup.run() {
            self.degraded.push(failed);
            self.dirty = true;
        }
        // A descriptor that cannot be watched shows at the next use of its stream.
        let _ = self.streams.deadline_passed();
    }

    /// Kills every process of the pod but pause.
    pub fn kill_all(&mut self) {
        self.kill_sessions();
        let all: Vec<u32> = self.containers.keys().copied().collect();
        for number in all {
            self.kill(number);
        }
    }

    pub(super) fn kill(&self, number: u32) {
        let Some(container) = self.containers.get(&number) else {
            return;
        };
        if let Phase::Running(init) = &container.phase {
            if let Some(Ok(cgroup)) = container.cgroup.as_deref().map(Cgroup::open) {
                let _ = cgroup.kill();
            }
            // It fails only when init has ended, which is what is wanted.
            let _ = pidfd_send_signal(&init.pidfd, SIGKILL);
        }
    }

    /// Kills the pause process; its end is then no event.
    pub fn stop_pause(&mut self) {
        if let Some(pause) = &self.pause {
            self.stopping = true;
            let _ = pidfd_send_signal(&pause.pidfd, SIGKILL);
        }
    }

    /// Whether no container, no session and no cgroup of theirs is left.
    pub fn is_quiet(&self) -> bool {
        let busy = |container: &Container| !matches!(container.phase, Phase::Exited(_));
        !self.containers.values().any(busy) && !self.has_sessions() && self.cleanup.is_empty()
    }

    /// Whether the pause process runs.
    pub fn has_pause(&self) -> bool {
        self.pause.is_some()
    }

    /// Ids of containers that have not ended, for people.
    pub fn unfinished(&self) -> String {
        let running = self
            .containers
            .values()
            .filter(|container| matches!(container.phase, Phase::Running(_)));
        let ids: Vec<&str> = running.map(|container| container.id.as_str()).collect();
        ids.join(", ")
    }
}
