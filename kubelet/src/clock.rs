//! The wall clock and its forms: milliseconds for decisions, API times for objects.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Milliseconds since the epoch, now.
#[must_use]
pub fn now_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The API's time of nanoseconds since the epoch, to the second; `None` for 0.
#[must_use]
pub fn time_of_nanos(nanos: i64) -> Option<Time> {
    if nanos <= 0 {
        return None;
    }
    Timestamp::from_second(nanos / 1_000_000_000).ok().map(Time)
}

/// The API's time of milliseconds since the epoch, to the second.
#[must_use]
pub fn time_of_millis(millis: i64) -> Time {
    Time(Timestamp::from_second(millis / 1000).unwrap_or_default())
}
