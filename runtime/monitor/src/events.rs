//! The pod's events, numbered, the newest kept for subscribers to come.

use std::collections::VecDeque;

use crate::protocol::{EVENTS_KEPT, Event, EventKind};

/// Invariant: `kept` holds the events `last - kept.len() + 1 ..= last`, in order.
#[derive(Debug, Default)]
pub struct EventLog {
    kept: VecDeque<Event>,
    last: u64,
}

impl EventLog {
    /// Appends an event under the next number.
    pub fn push(&mut self, kind: EventKind) {
        if self.kept.len() == EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.last += 1;
        self.kept.push_back(Event {
            seq: self.last,
            kind,
        });
    }

    /// Number of the newest event; 0 when there was none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The first event after number `after` that is kept.
    #[must_use]
    pub fn after(&self, after: u64) -> Option<&Event> {
        let skipped = (after + 1).saturating_sub(self.oldest());
        self.kept.get(usize::try_from(skipped).ok()?)
    }

    /// True when events after number `after` are no longer kept, or `after` was never reached (it is of another
    /// monitor's numbering).
    #[must_use]
    pub fn missed(&self, after: u64) -> bool {
        after > self.last || after + 1 < self.oldest()
    }

    fn oldest(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> EventLog {
        let mut log = EventLog::default();
        for _ in 0..count {
            log.push(EventKind::PauseExited);
        }
        log
    }

    #[test]
    fn a_subscriber_gets_what_it_lacks_and_learns_what_is_lost() {
        let kept = EVENTS_KEPT as u64;
        for (count, after, next, missed) in [
            (0, 0, None, false),
            (0, 5, None, true),
            (3, 0, Some(1), false),
            (3, 2, Some(3), false),
            (3, 3, None, false),
            (3, 9, None, true),
            (kept, 0, Some(1), false),
            (kept + 1, 0, Some(2), true),
            (kept + 1, 1, Some(2), false),
            (kept * 3, kept * 3, None, false),
        ] {
            let log = filled(count);
            let found = log.after(after).map(|event| event.seq);
            assert_eq!(
                (found, log.missed(after)),
                (next, missed),
                "{count} {after}"
            );
        }
    }
}
