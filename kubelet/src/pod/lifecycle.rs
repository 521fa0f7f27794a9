//! The life of one pod on this node, as a pure machine.
//!
//! ```text
//! Syncing ──stop asked, or every container done──▶ Terminating ──nothing runs──▶ Terminated
//!    │                                                                              │
//!    └── syncs as often as something changes              deleted or file gone ─────┘
//!                                                                 ▼
//!                                                             Finished
//! ```
//! Invariant: only `next` builds the following phase; containers may run only in `Syncing`
//! and `Terminating`, and no arrow leads back.

use std::time::Duration;

use super::admit::Rejection;

/// Why a pod is being stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// `metadata.deletionTimestamp` was set.
    Deleted,
    /// The object or the manifest file is gone.
    Removed,
    /// Every container is done and none is to be restarted.
    Completed,
    /// `activeDeadlineSeconds` has passed.
    DeadlineExceeded,
    /// The node refuses the pod; nothing was started.
    Rejected(Rejection),
    /// The node needs its resources back.
    Evicted(Rejection),
}

/// Where the pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Containers are started and kept running.
    Syncing,
    /// Everything is being stopped; `grace` only ever shrinks.
    Terminating { reason: Reason, grace: Duration },
    /// Nothing runs; records are kept while the API object exists.
    Terminated { reason: Reason },
    /// Nothing of the pod is left on this node.
    Finished,
}

/// What the machine is told at each step.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// A request to stop, with its grace period.
    pub stop: Option<(Reason, Duration)>,
    /// The pod's own end, when restart policy and exit codes say it is over, with the grace
    /// period of what still runs (sidecars).
    pub completed: Option<Duration>,
    /// A container runs, or a sandbox is ready.
    pub running: bool,
    /// Volumes, cgroup and network of the pod are gone.
    pub cleaned: bool,
    /// The pod is to disappear: deleted in the API, or no longer desired.
    pub unwanted: bool,
    /// The records of a finished pod have been removed.
    pub removed: bool,
}

/// What the worker does after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Compute and perform pod actions.
    Sync,
    /// Stop every container within the grace period, then the sandbox.
    Kill { grace: Duration },
    /// Take down what the pod had besides containers: probes, volumes, cgroup.
    CleanUp,
    /// Remove containers, sandboxes, logs and directories, then the API object.
    Remove,
}

impl Phase {
    /// One step. No I/O, no clock.
    #[must_use]
    pub fn next(self, seen: &Observed) -> (Phase, Vec<Effect>) {
        match self {
            Phase::Syncing => match (&seen.stop, seen.completed) {
                (Some((reason, grace)), _) => terminating(reason.clone(), *grace, seen),
                (None, Some(grace)) => terminating(Reason::Completed, grace, seen),
                (None, None) => (Phase::Syncing, vec![Effect::Sync]),
            },
            Phase::Terminating { reason, grace } => {
                let (reason, grace) = match &seen.stop {
                    Some((asked, shorter)) => (stronger(reason, asked), grace.min(*shorter)),
                    None => (reason, grace),
                };
                terminating(reason, grace, seen)
            }
            Phase::Terminated { reason } => {
                let reason = match &seen.stop {
                    Some((asked, _)) => stronger(reason, asked),
                    None => reason,
                };
                match (seen.cleaned, seen.unwanted, seen.removed) {
                    (_, true, true) => (Phase::Finished, Vec::new()),
                    (true, true, false) => (Phase::Terminated { reason }, vec![Effect::Remove]),
                    (true, false, _) => (Phase::Terminated { reason }, Vec::new()),
                    (false, _, _) => (Phase::Terminated { reason }, vec![Effect::CleanUp]),
                }
            }
            Phase::Finished => (Phase::Finished, Vec::new()),
        }
    }

    /// Whether containers of the pod may still run.
    #[must_use]
    pub fn may_run(&self) -> bool {
        matches!(self, Phase::Syncing | Phase::Terminating { .. })
    }

    /// Why the pod stops or stopped.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Phase::Terminating { reason, .. } | Phase::Terminated { reason } => Some(reason),
            Phase::Syncing | Phase::Finished => None,
        }
    }
}

fn terminating(reason: Reason, grace: Duration, seen: &Observed) -> (Phase, Vec<Effect>) {
    if seen.running {
        return (
            Phase::Terminating { reason, grace },
            vec![Effect::Kill { grace }],
        );
    }
    (Phase::Terminated { reason }, vec![Effect::CleanUp])
}

/// The reason that says more about the pod's end stays: a deletion does not hide that the
/// pod had been evicted, refused or complete before.
fn stronger(held: Reason, asked: &Reason) -> Reason {
    match (&held, asked) {
        (Reason::Deleted, Reason::Removed) => Reason::Removed,
        _ => held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S10: Duration = Duration::from_secs(10);
    const S2: Duration = Duration::from_secs(2);

    fn stop(reason: Reason, grace: Duration) -> Observed {
        Observed {
            stop: Some((reason, grace)),
            running: true,
            unwanted: true,
            ..Observed::default()
        }
    }

    fn deleted() -> Phase {
        Phase::Terminating {
            reason: Reason::Deleted,
            grace: S10,
        }
    }

    fn seen(set: impl FnOnce(&mut Observed)) -> Observed {
        let mut seen = Observed::default();
        set(&mut seen);
        seen
    }

    #[test]
    fn every_transition() {
        let running = seen(|s| s.running = true);
        let idle = Observed::default();
        let done = seen(|s| s.completed = Some(S10));
        let cleaned = seen(|s| s.cleaned = true);
        let unwanted = seen(|s| (s.cleaned, s.unwanted) = (true, true));
        let removed = seen(|s| (s.cleaned, s.unwanted, s.removed) = (true, true, true));
        let ended = |reason| Phase::Terminated { reason };
        let complete = || ended(Reason::Completed);
        let kill = |grace| vec![Effect::Kill { grace }];
        let sync = || vec![Effect::Sync];
        let clean = || vec![Effect::CleanUp];
        let deletion = stop(Reason::Deleted, S10);
        let table = [
            (Phase::Syncing, idle.clone(), Phase::Syncing, sync()),
            (Phase::Syncing, running.clone(), Phase::Syncing, sync()),
            (Phase::Syncing, deletion, deleted(), kill(S10)),
            (Phase::Syncing, done, complete(), clean()),
            (deleted(), running, deleted(), kill(S10)),
            (deleted(), idle.clone(), ended(Reason::Deleted), clean()),
            (complete(), idle, complete(), clean()),
            (complete(), cleaned, complete(), vec![]),
            (complete(), unwanted, complete(), vec![Effect::Remove]),
            (complete(), removed.clone(), Phase::Finished, vec![]),
            (Phase::Finished, removed, Phase::Finished, vec![]),
        ];
        for (from, seen, to, effects) in table {
            let label = format!("{from:?} + {seen:?}");
            assert_eq!(from.next(&seen), (to, effects), "{label}");
        }
    }

    #[test]
    fn a_second_request_only_shortens_the_grace() {
        let (phase, effects) = deleted().next(&stop(Reason::Removed, S2));
        assert_eq!(effects, [Effect::Kill { grace: S2 }]);
        let (phase, effects) = phase.next(&stop(Reason::Deleted, S10));
        assert_eq!(effects, [Effect::Kill { grace: S2 }]);
        assert_eq!(phase.reason(), Some(&Reason::Removed));
    }

    #[test]
    fn nothing_leads_back_to_syncing() {
        for phase in [
            deleted(),
            Phase::Terminated {
                reason: Reason::Completed,
            },
            Phase::Finished,
        ] {
            for running in [false, true] {
                for completed in [None, Some(S10)] {
                    let seen = Observed {
                        running,
                        completed,
                        ..Observed::default()
                    };
                    assert_ne!(phase.clone().next(&seen).0, Phase::Syncing);
                }
            }
        }
    }

    #[test]
    fn a_deletion_does_not_hide_an_eviction() {
        let evicted = Reason::Evicted(Rejection {
            reason: "Evicted".into(),
            message: "m".into(),
        });
        let phase = Phase::Terminating {
            reason: evicted.clone(),
            grace: S10,
        };
        let (phase, _) = phase.next(&stop(Reason::Deleted, S2));
        assert_eq!(phase.reason(), Some(&evicted));
    }
}
