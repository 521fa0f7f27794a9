//! Hard eviction: when the node runs short of memory, disk or processes, pods are stopped before the
//! kernel starts to kill at random.
//!
//! Every 10 s: read the signals, reclaim what belongs to nobody (images, on disk
//! pressure), and if that is not enough stop one pod.

mod act;
pub mod decide;
mod message;
pub mod signals;
pub mod threshold;

pub use act::{Eviction, run};
