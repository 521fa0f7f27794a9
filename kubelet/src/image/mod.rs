//! Images of pods: pulled by policy, with credentials and back-off; removed when unused.

pub mod gc;
pub mod pull;
mod secrets;
