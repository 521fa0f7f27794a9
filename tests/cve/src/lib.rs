//! The known attacks on OCI runtimes, each a case that any runtime can be put through.
//!
//! A case attacks as an image, a workload or a neighbour that shares a volume would, and judges by
//! what it can observe: canaries on the host, the mount table as the container sees it, inotify on
//! decoys, and a static probe inside. To refuse the container is as good as to make it safely.
//!
//! ```text
//! Suite ── for each Case ──▶ Arena (folder, copy of the runtime, canary) ──▶ Verdict
//!                              ├─ Bundle ─▶ Container ─▶ the probe's Report
//!                              ├─ Racer    exchanges two names while containers are made
//!                              └─ Decoy    a folder of the host that must stay as it is
//! ```

mod arena;
mod bundle;
mod case;
mod cases;
mod console;
mod container;
mod decoy;
pub mod probe;
mod proof;
mod racer;
mod runtime;
mod suite;
mod watch;

pub use case::{Case, Verdict};
pub use cases::all;
pub use proof::{Claim, PROOFS, Proof};
pub use runtime::Runtime;
pub use suite::{Outcome, Suite, Terms};
