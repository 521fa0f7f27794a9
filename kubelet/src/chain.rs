//! An error with its causes, in one line, for events and statuses.

use std::error::Error;
use std::fmt::Write as _;

/// `step: cause: cause of the cause`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}
