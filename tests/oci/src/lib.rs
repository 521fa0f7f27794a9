//! Bundles for the tests of an OCI runtime, and what the probe inside them reports.
//!
//! The runtime under test is `berth-oci` of this workspace, or the one named by
//! `BERTH_TEST_RUNTIME` (runc, crun): a test is proven on those before it judges ours.

mod bundle;
mod profile;
mod report;
mod runtime;

pub use bundle::Bundle;
pub use profile::Profile;
pub use report::Report;
pub use runtime::{Container, Output, faulty, runtime};
