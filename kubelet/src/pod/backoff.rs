//! Back-off of restarts and image pulls: 10 s, doubled up to a limit, forgotten after a
//! quiet time of twice the limit (10 min with the default 300 s).
//!
//! No clock of its own: every question carries the time (milliseconds since the epoch).

use std::collections::HashMap;
use std::time::Duration;

/// The first delay.
pub const INITIAL: Duration = Duration::from_secs(10);

/// Delays by key.
#[derive(Debug, Clone)]
pub struct Backoff {
    limit: i64,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    delay: i64,
    updated: i64,
    note: String,
}

impl Backoff {
    /// Nothing in back-off; delays grow up to `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Backoff {
        Backoff {
            limit: millis(limit),
            entries: HashMap::new(),
        }
    }

    /// How long `key` must still wait after its event (exit, failed pull) at `event`;
    /// `None` when it may go on now.
    #[must_use]
    pub fn remaining(&self, key: &str, event: i64, now: i64) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        if self.is_stale(entry, event) {
            return None;
        }
        let left = event + entry.delay - now;
        u64::try_from(left)
            .ok()
            .filter(|left| *left > 0)
            .map(Duration::from_millis)
    }

    /// The delay `key` is under, whether it has passed or not.
    #[must_use]
    pub fn delay(&self, key: &str) -> Option<Duration> {
        let delay = self.entries.get(key)?.delay;
        u64::try_from(delay).ok().map(Duration::from_millis)
    }

    /// Notes that `key` goes on after its event at `event`: the next wait is longer.
    pub fn advance(&mut self, key: &str, event: i64, now: i64) {
        let delay = match self.entries.get(key) {
            Some(entry) if !self.is_stale(entry, event) => (entry.delay * 2).min(self.limit),
            _ => millis(INITIAL).min(self.limit),
        };
        self.entries.insert(
            key.to_owned(),
            Entry {
                delay,
                updated: now,
                note: String::new(),
            },
        );
    }

    /// When `key` last went on.
    #[must_use]
    pub fn updated(&self, key: &str) -> Option<i64> {
        self.entries.get(key).map(|entry| entry.updated)
    }

    /// Keeps the reason for the wait, to be shown while it lasts.
    pub fn set_note(&mut self, key: &str, note: String) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.note = note;
        }
    }

    /// The reason kept for the wait.
    #[must_use]
    pub fn note(&self, key: &str) -> Option<String> {
        self.entries.get(key).map(|entry| entry.note.clone())
    }

    /// Forgets one key.
    pub fn clear(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Forgets every key beginning with `prefix` (a pod that is gone).
    pub fn clear_prefix(&mut self, prefix: &str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
    }

    /// It ran (or was quiet) so long that the history no longer counts.
    fn is_stale(&self, entry: &Entry, event: i64) -> bool {
        event - entry.updated > self.limit * 2
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_limit_and_are_forgotten() {
        let mut backoff = Backoff::new(Duration::from_secs(300));
        let mut now = 1_000_000;
        assert_eq!(backoff.remaining("k", now, now), None);
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff.advance("k", now, now);
            assert_eq!(
                backoff.remaining("k", now, now),
                Some(Duration::from_secs(expected))
            );
            now += i64::try_from(expected).unwrap() * 1000;
            assert_eq!(
                backoff.remaining("k", now - i64::try_from(expected).unwrap() * 1000, now),
                None
            );
        }
        // It ran longer than ten minutes before it ended again.
        now += 601_000;
        assert_eq!(backoff.remaining("k", now, now), None);
        backoff.advance("k", now, now);
        assert_eq!(backoff.delay("k"), Some(Duration::from_secs(10)));
    }

    #[test]
    fn keys_of_a_pod_go_together() {
        let mut backoff = Backoff::new(Duration::from_secs(300));
        backoff.advance("u1/a", 0, 0);
        backoff.advance("u1/b", 0, 0);
        backoff.advance("u2/a", 0, 0);
        backoff.clear_prefix("u1/");
        assert!(backoff.delay("u1/a").is_none() && backoff.delay("u2/a").is_some());
    }
}
