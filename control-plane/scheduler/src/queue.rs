//! Pods that wait for a node: ready ones by priority and age, those in back-off,
//! and those that nothing fits until the cluster changes. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// How often the loop looks when nothing is known to become ready.
const IDLE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    BackOff { until: Instant },
    Unschedulable,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    priority: i32,
    /// Order of arrival among pods of one priority.
    order: u64,
    failures: u32,
}

/// Invariant: a pod is in exactly one place.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: BTreeMap<String, Entry>,
    arrivals: u64,
}

impl Queue {
    /// A pod without a node was seen; one that is known stays where it is.
    pub fn add(&mut self, uid: String, priority: i32) {
        self.arrivals += 1;
        let order = self.arrivals;
        self.entries.entry(uid).or_insert(Entry {
            place: Place::Active,
            priority,
            order,
            failures: 0,
        });
    }

    pub fn remove(&mut self, uid: &str) {
        self.entries.remove(uid);
    }

    /// Takes the ready pod of highest priority, the oldest among equals.
    pub fn pop(&mut self, now: Instant) -> Option<String> {
        let uid = self
            .entries
            .iter()
            .filter(|(_, entry)| match entry.place {
                Place::Active => true,
                Place::BackOff { until } => until <= now,
                Place::Unschedulable => false,
            })
            .min_by_key(|(_, entry)| (std::cmp::Reverse(entry.priority), entry.order))
            .map(|(uid, _)| uid.clone())?;
        // It stays known, so that its own watch events do not queue it twice.
        if let Some(entry) = self.entries.get_mut(&uid) {
            entry.place = Place::Unschedulable;
        }
        Some(uid)
    }

    /// The last try failed for a reason that passes by itself.
    pub fn back_off(&mut self, uid: String, priority: i32, now: Instant) {
        self.add(uid.clone(), priority);
        if let Some(entry) = self.entries.get_mut(&uid) {
            let wait = FIRST_BACK_OFF * 2_u32.saturating_pow(entry.failures.min(4));
            entry.failures += 1;
            entry.place = Place::BackOff {
                until: now + wait.min(LONGEST_BACK_OFF),
            };
        }
    }

    /// No node fits; it waits for a change of the cluster.
    pub fn park(&mut self, uid: String, priority: i32) {
        self.add(uid.clone(), priority);
        if let Some(entry) = self.entries.get_mut(&uid) {
            entry.place = Place::Unschedulable;
        }
    }

    /// The cluster changed: whatever did not fit may fit now.
    pub fn retry_unschedulable(&mut self) {
        for entry in self.entries.values_mut() {
            if entry.place == Place::Unschedulable {
                entry.place = Place::Active;
            }
        }
    }

    /// How long until a pod becomes ready.
    pub fn next_ready_in(&self, now: Instant) -> Duration {
        self.entries
            .values()
            .filter_map(|entry| match entry.place {
                Place::Active => Some(Duration::ZERO),
                Place::BackOff { until } => Some(until.saturating_duration_since(now)),
                Place::Unschedulable => None,
            })
            .min()
            .unwrap_or(IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_priority_first_then_the_oldest() {
        let mut queue = Queue::default();
        for (uid, priority) in [("a", 0), ("b", 10), ("c", 10)] {
            queue.add(uid.into(), priority);
        }
        let now = Instant::now();
        let order: Vec<String> = std::iter::from_fn(|| queue.pop(now)).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[test]
    fn a_parked_pod_waits_for_a_change() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.park("a".into(), 0);
        queue.add("a".into(), 0);
        assert_eq!(queue.pop(now), None);
        queue.retry_unschedulable();
        assert_eq!(queue.pop(now).as_deref(), Some("a"));
    }

    #[test]
    fn back_off_doubles_to_a_limit() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let waits: Vec<u64> = (0..6)
            .map(|_| {
                queue.back_off("a".into(), 0, now);
                queue.next_ready_in(now).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }
}
