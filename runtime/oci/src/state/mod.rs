//! What the command line remembers about a container between its calls.
//!
//! ```text
//!   create        start          init ends        delete
//! ────────▶ Created ────▶ Running ────────▶ Stopped ────▶ (gone)
//!                 └──────── init ends ────────▲
//! ```
//! Only the pid is remembered, never a status: that is what the kernel says when asked.

mod record;
mod store;

pub use record::{Record, Status};
pub use store::{Lock, StateError, Store, bad_id, is_id};
