//! From how init ended to the record that the CRI server shows.

use berth_sys::reap::Ended;

use crate::protocol::ExitRecord;

/// What is known when a container's init has been reaped.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// Container id.
    pub container: &'a str,
    /// How init ended.
    pub ended: Ended,
    /// `oom_kill` of the cgroup's memory.events, read before the cgroup goes; `None` without memory controller.
    pub oom_kills: Option<u64>,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// Nanoseconds since 1970.
    pub finished_at: i64,
}

/// Exit code as shells and the CRI count it, and the signal.
#[must_use]
pub fn code_and_signal(ended: Ended) -> (i32, Option<i32>) {
    match ended {
        Ended::Code(code) => (code, None),
        Ended::Signal(signal) => (128 + signal, Some(signal)),
    }
}

/// Makes the record. `OOMKilled` is never guessed from the code alone: the kernel must have counted a kill; and a
/// container that ended well although it once lost a child to the OOM killer was not killed.
#[must_use]
pub fn compute(observed: &Observed<'_>) -> ExitRecord {
    let (code, signal) = code_and_signal(observed.ended);
    ExitRecord {
        container: observed.container.to_owned(),
        code,
        signal,
        oom_killed: code != 0 && observed.oom_kills.is_some_and(|count| count > 0),
        started_at: observed.started_at,
        // The clock may have been set back meanwhile; an end before the start confuses every reader.
        finished_at: observed.finished_at.max(observed.started_at),
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_signals_and_oom_kills() {
        for (ended, oom_kills, code, signal, oom_killed) in [
            (Ended::Code(0), None, 0, None, false),
            (Ended::Code(0), Some(1), 0, None, false),
            (Ended::Code(1), Some(1), 1, None, true),
            (Ended::Code(137), Some(0), 137, None, false),
            (Ended::Signal(9), None, 137, Some(9), false),
            (Ended::Signal(9), Some(2), 137, Some(9), true),
            (Ended::Signal(15), Some(0), 143, Some(15), false),
        ] {
            let record = compute(&Observed {
                container: "c",
                ended,
                oom_kills,
                started_at: 10,
                finished_at: 5,
            });
            assert_eq!(
                (record.code, record.signal, record.oom_killed),
                (code, signal, oom_killed)
            );
            assert_eq!(record.finished_at, 10);
        }
    }
}
