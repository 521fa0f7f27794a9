//! Ages as kubectl prints them: two or three significant figures.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::meta;

/// The time since a timestamp; `<unknown>` when there is none.
pub fn since(timestamp: &Value, now: DateTime<Utc>) -> String {
    match timestamp.as_str().and_then(meta::parse_time) {
        Some(at) => human_duration(now.signed_duration_since(at).num_milliseconds()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in milliseconds: `45s`, `3m20s`, `5h`, `2d3h`, `1y40d`.
pub fn human_duration(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, 'd', hours % 24, 'h'),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(years, 'y', days % 365, 'd'),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        const M: i64 = 60;
        const H: i64 = 3600;
        const D: i64 = 24 * H;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (3 * M + 20, "3m20s"),
            (10 * M + 5, "10m"),
            (179 * M, "179m"),
            (3 * H, "3h"),
            (7 * H + 59 * M, "7h59m"),
            (47 * H, "47h"),
            (48 * H, "2d"),
            (2 * D + 3 * H, "2d3h"),
            (8 * D + H, "8d"),
            (729 * D, "729d"),
            (730 * D, "2y"),
            (770 * D, "2y40d"),
            (365 * 9 * D, "9y"),
        ] {
            assert_eq!(human_duration(seconds * 1000), text, "{seconds}");
        }
    }
}
