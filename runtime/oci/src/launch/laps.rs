//! How long each part of a launch took: for `--debug`, and for the bench that tells where the time goes.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Stage;

/// The parts of a launch that are over, each with its time.
///
/// Taken from the clock of the wall: the others jump when a process enters a time namespace.
#[derive(Debug, Clone)]
pub(crate) struct Laps {
    last: SystemTime,
    over: Timings,
}

/// Time taken by the parts of a launch, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings(Vec<(Stage, Duration)>);

impl Laps {
    /// Begins the first part.
    pub(crate) fn begin() -> Laps {
        Laps {
            last: SystemTime::now(),
            over: Timings::default(),
        }
    }

    /// Ends a part and begins the next.
    pub(crate) fn end(&mut self, part: Stage) {
        let now = SystemTime::now();
        let taken = now.duration_since(self.last).unwrap_or_default(); // none where the clock was set back
        self.over.0.push((part, taken));
        self.last = now;
    }

    /// The parts that are over.
    pub(crate) fn over(self) -> Timings {
        self.over
    }
}

impl Timings {
    /// These parts, then those of `later`.
    pub(crate) fn then(mut self, later: Timings) -> Timings {
        self.0.extend(later.0);
        self
    }
}

impl fmt::Display for Timings {
    /// `cgroup 0.210 ms, clone 0.655 ms, …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (part, taken)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{part} {:.3} ms", taken.as_secs_f64() * 1000.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_in_their_order() {
        let mut parent = Laps::begin();
        parent.end(Stage::Cgroup);
        let mut child = Laps::begin();
        child.end(Stage::Rootfs);
        let all = parent.over().then(child.over());
        let text = all.to_string();
        assert!(text.starts_with("cgroup 0.0"), "{text}");
        assert!(text.contains(" ms, rootfs 0.0"), "{text}");
    }
}
