//! Container logs on disk: their files, which of them stay, and their rotation.
//!
//! A log `0.log` that has grown large is renamed to `0.log.YYYYMMDD-HHMMSS` (UTC) and the
//! runtime opens a new one; the newest renamed file stays as it is, for readers that still
//! follow it, older ones are compressed to `….gz`. Names are the stock kubelet's, so that
//! what collects logs finds them.

mod files;
mod plan;
mod rotate;

pub use files::LogFiles;
pub use rotate::run;
