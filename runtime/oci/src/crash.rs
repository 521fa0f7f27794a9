//! The points at which a test kills the runtime ([`berth_sys::crash`]).

/// Every point, in the order in which `create`, `start`, `exec`, `kill` and `delete` reach them; the
/// terminal's only where there is one.
pub const POINTS: [&str; 20] = [
    "create: directory made",
    "create: record saved",
    "create: spec kept",
    "create: gate made",
    "create: cgroup made",
    "create: limits set",
    "create: child cloned",
    "create: child ready",
    "create: pid recorded",
    "create: pid file written",
    "start: program executed",
    "start: state written",
    "exec: child cloned",
    "exec: program executed",
    "exec: pid file written",
    "kill: signal sent",
    "delete: processes killed",
    "delete: cgroup removed",
    "delete: hooks run",
    "delete: state removed",
];
