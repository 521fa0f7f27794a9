//! The thresholds of hard eviction: their signals, their amounts, the stock defaults.

use std::collections::BTreeMap;

use super::signals::{Left, Reading};
use crate::resources::quantity;

/// A signal, in the stock kubelet's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

/// The least that must be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    /// Bytes, inodes or processes.
    Amount(u64),
    /// Thousandths of a percent of all there is.
    MilliPercent(u64),
}

/// A signal and the least that must be left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Of which signal.
    pub signal: Signal,
    /// Below which pods are evicted.
    pub least: Least,
}

/// Why a threshold is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No signal of this name.
    #[error("`{0}` is not an eviction signal")]
    Signal(String),
    /// The amount is neither a positive quantity nor a percentage up to 100.
    #[error("`{amount}` of `{signal}` is neither a positive quantity nor a percentage up to 100%")]
    Amount { signal: String, amount: String },
}

impl Signal {
    /// Every signal, the order in which they are acted on: memory first, for it kills.
    const ALL: [(Signal, &'static str); 6] = [
        (Signal::MemoryAvailable, "memory.available"),
        (Signal::NodeFsAvailable, "nodefs.available"),
        (Signal::NodeFsInodesFree, "nodefs.inodesFree"),
        (Signal::ImageFsAvailable, "imagefs.available"),
        (Signal::ImageFsInodesFree, "imagefs.inodesFree"),
        (Signal::PidAvailable, "pid.available"),
    ];

    /// The resource that is short, as the eviction message names it.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// A signal of a file system.
    #[must_use]
    pub fn is_disk(self) -> bool {
        !matches!(self, Signal::MemoryAvailable | Signal::PidAvailable)
    }

    /// What a reading says of it; `None` when it says nothing.
    #[must_use]
    pub fn left(self, reading: &Reading) -> Option<Left> {
        match self {
            Signal::MemoryAvailable => Some(reading.memory),
            Signal::NodeFsAvailable => Some(reading.nodefs.bytes),
            Signal::NodeFsInodesFree => Some(reading.nodefs.inodes),
            Signal::ImageFsAvailable => reading.imagefs.map(|fs| fs.bytes),
            Signal::ImageFsInodesFree => reading.imagefs.map(|fs| fs.inodes),
            Signal::PidAvailable => Some(reading.pids),
        }
    }
}

impl Least {
    /// As an amount of what there is in all.
    #[must_use]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Least::Amount(amount) => amount,
            Least::MilliPercent(share) => {
                let part = u128::from(capacity) * u128::from(share) / 100_000;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }
}

/// evictionHard's defaults.
#[must_use]
pub fn defaults() -> Vec<Threshold> {
    let threshold = |signal, least| Threshold { signal, least };
    vec![
        threshold(Signal::MemoryAvailable, Least::Amount(100 << 20)),
        threshold(Signal::NodeFsAvailable, Least::MilliPercent(10_000)),
        threshold(Signal::NodeFsInodesFree, Least::MilliPercent(5_000)),
        threshold(Signal::ImageFsAvailable, Least::MilliPercent(15_000)),
        threshold(Signal::ImageFsInodesFree, Least::MilliPercent(5_000)),
    ]
}

/// Reads evictionHard. As with the stock kubelet it replaces all defaults, unless they are
/// to be merged (mergeDefaultEvictionSettings), and `0%` and `100%` turn a signal off.
///
/// # Errors
/// A signal that is none, or an amount that cannot be one.
pub fn parse(
    given: &BTreeMap<String, String>,
    merge: bool,
) -> Result<Vec<Threshold>, ThresholdError> {
    let mut thresholds = match merge {
        true => defaults(),
        false => Vec::new(),
    };
    for (name, amount) in given {
        let known = Signal::ALL.iter().find(|(_, known)| known == name);
        let Some((signal, _)) = known.copied() else {
            return Err(ThresholdError::Signal(name.clone()));
        };
        let bad = || ThresholdError::Amount {
            signal: name.clone(),
            amount: amount.clone(),
        };
        let least = parse_least(amount).ok_or_else(bad)?;
        thresholds.retain(|t| t.signal != signal);
        if !matches!(least, Least::MilliPercent(0 | 100_000)) {
            thresholds.push(Threshold { signal, least });
        }
    }
    thresholds.sort_by_key(|t| t.signal);
    Ok(thresholds)
}

fn parse_least(amount: &str) -> Option<Least> {
    if let Some(percent) = amount.strip_suffix('%') {
        let share = quantity::milli(percent).and_then(|share| u64::try_from(share).ok())?;
        return (share <= 100_000).then_some(Least::MilliPercent(share));
    }
    let amount = quantity::value(amount).and_then(|amount| u64::try_from(amount).ok())?;
    (amount > 0).then_some(Least::Amount(amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)], merge: bool) -> Result<Vec<Threshold>, ThresholdError> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        parse(&given.iter().map(own).collect(), merge)
    }

    #[test]
    fn what_is_given_replaces_the_defaults_unless_merged() {
        let pids = ("pid.available", "7.5%");
        let alone = read(&[pids, ("memory.available", "1Gi")], false).unwrap();
        let threshold = |signal, least| Threshold { signal, least };
        let memory = threshold(Signal::MemoryAvailable, Least::Amount(1 << 30));
        let pid = threshold(Signal::PidAvailable, Least::MilliPercent(7_500));
        assert_eq!(alone, [memory, pid]);
        let merged = read(&[pids, ("imagefs.inodesFree", "0%")], true).unwrap();
        let mut expected = defaults();
        expected.pop();
        expected.push(pid);
        assert_eq!(merged, expected);
        assert_eq!(pid.least.of(1000), 75);
    }

    #[test]
    fn what_is_no_threshold_is_named() {
        for (signal, amount) in [
            ("memory.available", "x"),
            ("memory.available", "0"),
            ("memory.available", "-1Gi"),
            ("memory.available", "101%"),
        ] {
            let error = read(&[(signal, amount)], false).unwrap_err();
            assert!(error.to_string().contains(amount), "{error}");
        }
        let error = read(&[("swap.available", "1%")], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`swap.available` is not an eviction signal"
        );
    }
}
