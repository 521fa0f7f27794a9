//! What every test above the unit ring stands on: isolated hosts, leak check, skips.
//!
//! ```no_run
//! use berth_test_harness::{Host, Need, test};
//!
//! #[test]
//! fn root_a_link_goes_with_its_namespace() {
//!     test(&[Need::Root], || {
//!         Host::isolated(|host| {
//!             host.run("ip", &["link", "add", "b0", "type", "bridge"])?;
//!             Ok(())
//!         })
//!     });
//! }
//! ```

mod host;
mod leak;
mod need;

pub use host::{Host, HostError};
pub use leak::{Leak, Places, Snapshot, SnapshotError};
pub use need::{Need, Skipped, check, patient, test};
