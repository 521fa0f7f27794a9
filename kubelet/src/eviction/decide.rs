//! Which thresholds are passed, and who goes: pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::signals::Reading;
use super::threshold::{Signal, Threshold};
use crate::node::Pressure;
use crate::pod::PodUid;

/// A threshold that is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Of which signal.
    pub signal: Signal,
    /// The least that must be left, in bytes or inodes.
    pub threshold: u64,
    /// What is left.
    pub available: u64,
}

/// The thresholds that a reading passes, in their order.
#[must_use]
pub fn passed(reading: &Reading, thresholds: &[Threshold]) -> Vec<Passed> {
    let check = |threshold: &Threshold| {
        let signal = threshold.signal;
        let left = signal.left(reading).filter(|left| left.capacity > 0)?;
        let threshold = threshold.least.of(left.capacity);
        (left.available < threshold).then_some(Passed {
            signal,
            threshold,
            available: left.available,
        })
    };
    thresholds.iter().filter_map(check).collect()
}

/// When each signal was last passed: conditions must not flap.
#[derive(Debug)]
pub struct Held {
    transition: Duration,
    last: HashMap<Signal, Instant>,
}

impl Held {
    /// A condition outlives its signal by `transition` (evictionPressureTransitionPeriod).
    #[must_use]
    pub fn new(transition: Duration) -> Held {
        Held {
            transition,
            last: HashMap::new(),
        }
    }

    /// The conditions of the node after one more look at `now`.
    pub fn pressure(&mut self, passed: &[Passed], now: Instant) -> Pressure {
        for threshold in passed {
            self.last.insert(threshold.signal, now);
        }
        let transition = self.transition;
        self.last
            .retain(|_, last| now.duration_since(*last) < transition);
        Pressure {
            memory: self.last.contains_key(&Signal::MemoryAvailable),
            disk: self.last.keys().any(|signal| signal.is_disk()),
            pid: self.last.contains_key(&Signal::PidAvailable),
        }
    }
}

/// A pod that might be evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub uid: PodUid,
    /// `spec.priority`.
    pub priority: i32,
    /// Static, mirror or critical: never evicted.
    pub exempt: bool,
    /// Used of the resource that is short: bytes, or processes.
    pub usage: u64,
    /// Requested of it; nobody requests processes.
    pub request: u64,
}

/// The pod to evict: one that uses more than it asked for before one that does not, then
/// the lowest priority, then the one furthest above its request. Nobody asks for processes:
/// there the priority alone goes before the number.
#[must_use]
pub fn victim(candidates: &[Candidate]) -> Option<&Candidate> {
    let rank = |c: &&Candidate| {
        let above = i128::from(c.usage) - i128::from(c.request);
        (above <= 0, c.priority, -above)
    };
    candidates.iter().filter(|c| !c.exempt).min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::signals::{FsLeft, Left};
    use crate::eviction::threshold::{Least, defaults};

    const MIB: u64 = 1 << 20;

    fn reading(memory: u64, node: u64, image: Option<u64>, inodes: u64) -> Reading {
        let left = |available, capacity| Left {
            available,
            capacity,
        };
        let fs = |bytes| FsLeft {
            bytes: left(bytes, 100_000),
            inodes: left(inodes, 1000),
        };
        Reading {
            memory: left(memory * MIB, 8000 * MIB),
            pids: left(100, 1000),
            nodefs: fs(node),
            imagefs: image.map(fs),
        }
    }

    #[test]
    fn thresholds() {
        use Signal::{ImageFsAvailable, MemoryAvailable, NodeFsAvailable, NodeFsInodesFree};
        for (reading, expected) in [
            (reading(100, 10_000, Some(15_000), 50), vec![]),
            (reading(99, 10_000, None, 50), vec![MemoryAvailable]),
            (
                reading(500, 9_999, Some(14_999), 50),
                vec![NodeFsAvailable, ImageFsAvailable],
            ),
            (reading(500, 50_000, None, 49), vec![NodeFsInodesFree]),
        ] {
            let got: Vec<Signal> = passed(&reading, &defaults())
                .iter()
                .map(|p| p.signal)
                .collect();
            assert_eq!(got, expected);
        }
        let mut uncounted = reading(500, 50_000, None, 0);
        uncounted.nodefs.inodes.capacity = 0;
        assert_eq!(passed(&uncounted, &defaults()), []);
    }

    #[test]
    fn pressure_outlives_its_signal() {
        let mut held = Held::new(Duration::from_secs(300));
        let start = Instant::now();
        let mut thresholds = defaults();
        thresholds.push(Threshold {
            signal: Signal::PidAvailable,
            least: Least::Amount(101),
        });
        let short = passed(&reading(1, 50_000, None, 500), &thresholds);
        let both = Pressure {
            memory: true,
            disk: false,
            pid: true,
        };
        assert_eq!(held.pressure(&short, start), both);
        assert!(held.pressure(&[], start + Duration::from_secs(299)).memory);
        let after = held.pressure(&[], start + Duration::from_secs(300));
        assert_eq!(after, Pressure::default());
    }

    #[test]
    fn who_goes_first() {
        let pod = |uid: &str, priority, usage, request| Candidate {
            uid: PodUid::from(uid.to_owned()),
            priority,
            exempt: uid.starts_with('x'),
            usage,
            request,
        };
        for (candidates, expected) in [
            (vec![pod("a", 0, 5, 0), pod("b", 0, 9, 0)], Some("b")),
            (vec![pod("a", 0, 5, 6), pod("b", 9, 5, 4)], Some("b")),
            (vec![pod("a", 1, 9, 0), pod("b", 0, 5, 0)], Some("b")),
            (vec![pod("a", 0, 9, 8), pod("b", 0, 5, 0)], Some("b")),
            (vec![pod("x", 0, 9, 0), pod("b", 9, 0, 1)], Some("b")),
            (vec![pod("x", 0, 9, 0)], None),
            (vec![], None),
        ] {
            let got = victim(&candidates).map(|c| c.uid.as_str());
            assert_eq!(got, expected, "{candidates:?}");
        }
    }
}
