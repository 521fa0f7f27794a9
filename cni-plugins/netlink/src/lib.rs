//! Netlink as the CNI plugins need it: one socket, links, addresses, routes;
//! work inside a network namespace; nftables rulesets.
//!
//! Synchronous on purpose: a plugin is a short program, and a call from the CRI
//! server runs on a blocking thread.

mod addr;
mod handover;
mod link;
pub mod netns;
pub mod nft;
mod route;
mod socket;

pub use link::{Link, VethPair};
pub use socket::{NetlinkError, Socket};
