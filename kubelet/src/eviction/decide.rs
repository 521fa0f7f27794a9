//! Which thresholds are passed, and who goes: pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::signals::{Left, Reading};
use crate::node::Pressure;
use crate::pod::PodUid;

/// How long a pressure condition outlives its signal (evictionPressureTransitionPeriod).
const TRANSITION: Duration = Duration::from_secs(5 * 60);

/// A signal, in the stock kubelet's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
}

/// The least that must be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Least {
    Bytes(u64),
    Percent(u64),
}

impl Signal {
    /// Every signal, the order in which they are acted on: memory first, for it kills.
    const ALL: [Signal; 5] = [
        Signal::MemoryAvailable,
        Signal::NodeFsAvailable,
        Signal::NodeFsInodesFree,
        Signal::ImageFsAvailable,
        Signal::ImageFsInodesFree,
    ];

    /// The resource that is short, as the eviction message names it.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => "inodes",
        }
    }

    /// A signal of a file system.
    #[must_use]
    pub fn is_disk(self) -> bool {
        self != Signal::MemoryAvailable
    }

    /// evictionHard's defaults.
    fn least(self) -> Least {
        match self {
            Signal::MemoryAvailable => Least::Bytes(100 << 20),
            Signal::NodeFsAvailable => Least::Percent(10),
            Signal::ImageFsAvailable => Least::Percent(15),
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => Least::Percent(5),
        }
    }

    fn left(self, reading: &Reading) -> Option<Left> {
        match self {
            Signal::MemoryAvailable => Some(reading.memory),
            Signal::NodeFsAvailable => Some(reading.nodefs.bytes),
            Signal::NodeFsInodesFree => Some(reading.nodefs.inodes),
            Signal::ImageFsAvailable => reading.imagefs.map(|fs| fs.bytes),
            Signal::ImageFsInodesFree => reading.imagefs.map(|fs| fs.inodes),
        }
    }
}

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

/// The thresholds that a reading passes, in the order in which they are acted on.
#[must_use]
pub fn passed(reading: &Reading) -> Vec<Passed> {
    let check = |signal: Signal| {
        let left = signal.left(reading).filter(|left| left.capacity > 0)?;
        let threshold = match signal.least() {
            Least::Bytes(bytes) => bytes,
            Least::Percent(percent) => left.capacity / 100 * percent,
        };
        (left.available < threshold).then_some(Passed {
            signal,
            threshold,
            available: left.available,
        })
    };
    Signal::ALL.into_iter().filter_map(check).collect()
}

/// When each signal was last passed: conditions must not flap.
#[derive(Debug, Default)]
pub struct Held {
    last: HashMap<Signal, Instant>,
}

impl Held {
    /// The conditions of the node after one more look at `now`.
    pub fn pressure(&mut self, passed: &[Passed], now: Instant) -> Pressure {
        for threshold in passed {
            self.last.insert(threshold.signal, now);
        }
        self.last
            .retain(|_, last| now.duration_since(*last) < TRANSITION);
        Pressure {
            memory: self.last.keys().any(|signal| !signal.is_disk()),
            disk: self.last.keys().any(|signal| signal.is_disk()),
            pid: false,
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
    /// Bytes used of the resource that is short.
    pub usage: u64,
    /// Bytes requested of it.
    pub request: u64,
}

/// The pod to evict: one that uses more than it asked for before one that does not, then
/// the lowest priority, then the one furthest above its request.
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
    use crate::eviction::signals::FsLeft;

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
            let got: Vec<Signal> = passed(&reading).iter().map(|p| p.signal).collect();
            assert_eq!(got, expected);
        }
        let mut uncounted = reading(500, 50_000, None, 0);
        uncounted.nodefs.inodes.capacity = 0;
        assert_eq!(passed(&uncounted), []);
    }

    #[test]
    fn pressure_outlives_its_signal() {
        let mut held = Held::default();
        let start = Instant::now();
        let short = passed(&reading(1, 50_000, None, 500));
        assert!(held.pressure(&short, start).memory);
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
