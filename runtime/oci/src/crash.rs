//! The points at which a test kills the runtime ([`berth_sys::crash`]).

/// Every point, in the order in which `create`, `start` and `delete` reach them.
pub const POINTS: [&str; 13] = [
    "create: directory made",
    "create: record saved",
    "create: spec kept",
    "create: gate made",
    "create: cgroup made",
    "create: limits set",
    "create: child cloned",
    "create: child ready",
    "create: pid recorded",
    "start: program executed",
    "delete: processes killed",
    "delete: cgroup removed",
    "delete: state removed",
];
